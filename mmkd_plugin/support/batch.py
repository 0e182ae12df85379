"""A labelled batch on which any of mmdet's image detectors can take a training step."""

from typing import Any

import torch
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

_STUFF = 80  # the first class of COCO's panoptic segments that is no thing


def detection_batch(
    shape: tuple[int, int, int], classes: int | None, masks: bool = False, stride: int = 1
) -> dict[str, Any]:
    """Two images with two objects each, as a data loader gives them, with all that any detector is trained on.

    Args:
        shape: (C, H, W) of an image, uint8.
        classes: How many there are; the objects are of the first ones.
        masks: Whether objects have masks, which RTMDet takes for those of its boxes.
        stride: Of the semantic segments, in pixels.
    """
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in range(2)]
    sides = shape[1:]
    samples = []
    for number in range(2):
        meta = {
            'img_id': number, 'img_path': f'{number}.png', 'img_shape': sides, 'ori_shape': sides, 'pad_shape': sides,
            'scale_factor': (1.0, 1.0), 'flip': False, 'flip_direction': None, 'border': (0, 0, 0, 0),
        }  # fmt: skip
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = _objects(sides, classes, masks)
        sample.ignored_instances = sample.gt_instances[:0]
        sample.proposals = InstanceData(bboxes=_proposals(sides, generator), scores=torch.ones(20))
        sample.gt_sem_seg = PixelData(sem_seg=_segments(sides, stride))
        samples.append(sample)
    return {'inputs': images, 'data_samples': samples}


def _boxes(sides: tuple[int, ...]) -> Tensor:
    """Two that do not overlap, half and a quarter of the image's sides."""
    height, width = sides
    return torch.tensor([[0.05, 0.05, 0.55, 0.55], [0.6, 0.6, 0.85, 0.85]]) * torch.tensor([width, height] * 2)


def _objects(sides: tuple[int, ...], classes: int | None, with_masks: bool) -> InstanceData:
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks

    boxes = _boxes(sides)
    objects = InstanceData(bboxes=HorizontalBoxes(boxes), labels=torch.arange(len(boxes)) % max(classes or 1, 1))
    if with_masks:
        masks = torch.zeros(len(boxes), *sides, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        objects.masks = BitmapMasks(masks.numpy(), *sides)
    return objects


def _proposals(sides: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """20 boxes near the objects."""
    boxes = _boxes(sides).repeat(10, 1)
    return boxes + torch.rand(boxes.shape, generator=generator) * min(sides) / 8


def _segments(sides: tuple[int, ...], stride: int) -> Tensor:
    """(1, H, W): two kinds of stuff, one above the other."""
    segments = torch.full((1, sides[0] // stride, sides[1] // stride), _STUFF)
    segments[:, segments.size(1) // 2 :] += 1
    return segments
