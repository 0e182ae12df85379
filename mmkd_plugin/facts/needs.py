"""What a loss may ask for besides tapped values: labels, boxes, indices, how far the run is. An open list."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..datasets.indexed import INDEX

F = TypeVar('F', bound=Callable[..., Any])


class Need(NamedTuple):
    """Something that `DistillLoss.needs` may name.

    Attributes:
        provide: From a :class:`~mmkd_plugin.facts.Batch` to the value.
        for_rows: Whether it has a row for each image: then a loss whose taps have a row for each RoI gets one for each
            of these.
        example: The same in a dry run, on images that nobody labelled; None where there is none.
    """

    provide: Callable[[Any], Any]
    for_rows: bool
    example: Callable[[Any], Any] | None


#: By name.
NEEDS: dict[str, Need] = {}


def register_need(name: str, for_rows: bool = False, example: Callable[[Any], Any] | None = None) -> Callable[[F], F]:
    """Make something known that losses may name in their ``needs``.

    It is computed where a loss asks for it, once in a step, and passed under its name.

    Args:
        name: A keyword of ``forward``.
        for_rows: Whether the value has a row for each image.
        example: A function of the batch for the dry run, which has images and no data samples. Without it a loss that
            asks is not tried before the first step.

    Returns:
        A decorator for a function of the :class:`~mmkd_plugin.facts.Batch`.

    Raises:
        ValueError: If the name is taken, or is no identifier.

    Example:
        >>> @register_need('batch_size')
        ... def batch_size(batch):
        ...     return len(batch.images)
        >>> NEEDS.pop('batch_size').for_rows
        False
    """
    if not name.isidentifier() or name in (*NEEDS, 'student', 'teacher', 'teachers', 'self'):
        raise ValueError(f'need {name!r} given, expected an identifier that is not taken yet by {sorted(NEEDS)}')

    def register(function: F) -> F:
        NEEDS[name] = Need(function, for_rows, example)
        return function

    return register


def _zeros(batch: Any) -> Tensor:
    return torch.zeros(len(batch.images), dtype=torch.int64, device=batch.images.device)


def _whole_images(batch: Any) -> Tensor:
    height, width = batch.images.shape[-2:]
    corners = batch.images.new_tensor([0, 0, width, height]).expand(len(batch.images), 4)
    return torch.cat([torch.arange(len(batch.images), device=corners.device)[:, None].to(corners), corners], dim=1)


@register_need('labels', for_rows=True, example=_zeros)
def labels(batch: Any) -> Tensor:
    """One class index per image, (N,) int64; per RoI, the class that the student assigned it, background last.

    Raises:
        ValueError: If there are none, or several for one image.
        TypeError: If they are soft (mixup, cutmix, one-hot scores).
    """
    device = batch.images.device
    if isinstance(batch.data_samples, Tensor):
        return batch.data_samples.to(device)
    for sample in _samples(batch, 'labels'):
        if 'gt_score' in sample:
            raise TypeError(
                'labels are needed, and this batch has soft ones (gt_score: mixup, cutmix or '
                'one-hot): remove train_cfg.augments / batch_augments or to_onehot from the '
                'student, or use KDLoss'
            )
        if 'gt_label' not in sample or sample.gt_label.numel() != 1:
            raise ValueError(
                'labels are needed, one class per image; this batch has an image with '
                + (f'{sample.gt_label.tolist()}' if 'gt_label' in sample else 'no gt_label')
            )
    return torch.cat([sample.gt_label.view(1) for sample in batch.data_samples]).to(device)


@register_need(
    'sample_idx', for_rows=True, example=lambda batch: torch.arange(len(batch.images)).to(batch.images.device)
)
def sample_idx(batch: Any) -> Tensor:
    """Each image's index in the whole training data, (N,) int64.

    Raises:
        ValueError: If a data sample does not carry it, or was drawn in place of one that the pipeline refused.
    """
    indices = [sample.metainfo.get(INDEX) for sample in _samples(batch, 'sample_idx')]
    if None in indices:
        raise ValueError(
            "sample_idx is needed, and this batch has none: add dict(type='DistillHook') to custom_hooks, which gives "
            "each sample its own (tools/train.py adds it; mmengine's sample_idx repeats under ConcatDataset)"
        )
    if -1 in indices:
        raise ValueError(
            'sample_idx is needed, and this batch has an image without: the pipeline refused an image (a transform '
            'returned None), and mmengine drew another in its place. Take what is refused out of the data set, or out '
            'of the pipeline what refuses it'
        )
    return torch.tensor(indices, device=batch.images.device)


@register_need('epoch', example=lambda batch: 0)
def epoch(batch: Any) -> int:
    """From 0."""
    return batch.progress.epoch


@register_need('iteration', example=lambda batch: 0)
def iteration(batch: Any) -> int:
    """From 0."""
    return batch.progress.iteration


@register_need('input_size', example=lambda batch: tuple(batch.images.shape[-2:]))
def input_size(batch: Any) -> tuple[int, int]:
    """Height and width in pixels of the whole batch, padding included."""
    height, width = batch.images.shape[-2:]
    return height, width


def image_sizes(batch: Any) -> Tensor:
    """Height and width in pixels of each image without its padding, (N, 2) int64; where nobody knows, the batch's."""
    sizes = batch.sizes or [tuple(batch.images.shape[-2:])] * len(batch.images)
    return torch.tensor([list(size) for size in sizes]).to(batch.images.device, non_blocking=True)


register_need('image_sizes', for_rows=True, example=image_sizes)(image_sizes)


@register_need('boxes', example=_whole_images)
def boxes(batch: Any) -> Tensor:
    """All ground truth of a detection batch as RoIs are given, (M, 5): image, x1, y1, x2, y2 in its pixels.

    Raises:
        ValueError: If the data samples carry no boxes.
    """
    tensors = _corners(batch, 'boxes')
    corners = torch.cat(tensors).to(batch.images.device)
    counts = torch.tensor([len(tensor) for tensor in tensors])  # on the CPU, so that nobody waits for a GPU
    image = torch.arange(len(tensors)).repeat_interleave(counts).to(corners.device, non_blocking=True)
    return torch.cat([image[:, None].to(corners.dtype), corners], dim=1)


def _padded_whole_images(batch: Any) -> Tensor:
    return _whole_images(batch)[:, None, 1:]


@register_need('padded_boxes', for_rows=True, example=_padded_whole_images)
def padded_boxes(batch: Any) -> Tensor:
    """Ground truth image by image, (N, B, 4): x1, y1, x2, y2 in pixels, B being the most that an image has.

    Rows that are no box begin at infinity and end at minus infinity, so that they cover nothing. Nobody waits for the
    device to know B.

    Raises:
        ValueError: If the data samples carry no boxes.
    """
    padded = nn.utils.rnn.pad_sequence(_corners(batch, 'padded_boxes'), batch_first=True, padding_value=math.inf)
    padded = padded.to(batch.images.device, non_blocking=True)
    ends = padded[:, :, 2:]
    return torch.cat([padded[:, :, :2], torch.where(ends.isinf(), -math.inf, ends)], dim=2)


@register_need('box_labels', example=_zeros)
def box_labels(batch: Any) -> Tensor:
    """The class of each of ``boxes``, (M,) int64.

    Raises:
        ValueError: If the data samples carry no boxes.
    """
    return torch.cat([_instances(sample).labels for sample in _samples(batch, 'box_labels')]).to(batch.images.device)


@register_need('assignments')
def assignments(batch: Any) -> tuple[Tensor, ...]:
    """Which class a dense head assigned each position in the student's own pass, background last.

    Read where it goes into the head's classification loss: a tensor (N * H * W * anchors,) for each call of that,
    which most heads make once for each level, FCOS once for all of them. Of the head that the loss's own taps lie in.

    Raises:
        ValueError: If no head tells them, or it tells something else (YOLOX tells those of positive ones only).
    """
    told = [list(levels) for levels in batch.assigned.values() if levels]
    if len(told) != 1:
        raise ValueError(
            f'assignments are needed, and {len(told)} dense heads of the student told theirs ({list(batch.assigned)}): '
            "tap one whose classification loss takes them in, as in on='bbox_head[0][0]'"
        )
    if odd := [(tuple(t.shape), t.dtype) for t in told[0] if t.ndim != 1 or t.dtype != torch.int64]:
        raise ValueError(
            f'assignments are needed, and {next(iter(batch.assigned))} tells its loss {odd[0]}, expected '
            'a class for each position, (positions,) of int64: this head assigns in another way'
        )
    return tuple(told[0])


def _corners(batch: Any, what: str) -> list[Tensor]:
    """Of each image, its boxes (boxes, 4)."""
    found = [_instances(sample).bboxes for sample in _samples(batch, what)]
    tensors = [getattr(item, 'tensor', item) for item in found]  # mmdet's box structures, or tensors
    if odd := [tuple(tensor.shape) for tensor in tensors if tensor.ndim != 2 or tensor.size(1) != 4]:
        raise ValueError(
            f'boxes are needed, and this batch has some of shape {odd[0]}, expected (boxes, 4): x1, y1, x2, y2'
        )
    return tensors


def _instances(sample: Any) -> Any:
    instances = sample.get('gt_instances') if hasattr(sample, 'get') else None
    if instances is None or 'bboxes' not in instances:
        raise ValueError('boxes are needed, and this batch has an image without gt_instances.bboxes: train a detector')
    return instances


def _samples(batch: Any, what: str) -> Sequence[Any]:
    samples = batch.data_samples
    if not isinstance(samples, Sequence) or not samples:
        raise ValueError(f'{what} needed, but the batch has data_samples={type(samples).__name__}')
    return samples
