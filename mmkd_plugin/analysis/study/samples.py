"""Which images are looked at, and where their foreground is."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch import Tensor
from torch.nn.functional import interpolate

from ..cells import Cells
from ..pictures import input_image

_CENTRE = 8  # an eighth of the image at each border is background


@dataclass
class Sample:
    """An image of the data set.

    Attributes:
        index: Its place there.
        name: Its file, or its place.
        batch: As a data loader gives it, alone.
        shown: RGB (H, W, 3), for pictures.
        padded: Height and width of what the student gets.
        foreground: Cells, booleans (h, w); more than half of such a cell is foreground.
        background: The other cells, but for those that are mostly padding.
    """

    index: int
    name: str
    batch: Any
    shown: np.ndarray
    padded: tuple[int, int]
    foreground: Tensor
    background: Tensor

    @property
    def valid(self) -> Tensor:
        """Cells that count."""
        return self.foreground | self.background


def read_samples(
    config: Config, model: Any, count: int, masks: str, cells: int, skip_empty: bool = False
) -> list[Sample]:
    """Images of a config's test data, spread evenly over it, with the cells of their foreground.

    Args:
        config: Its test (or else validation) data set and pipeline are used.
        model: The student, whose data preprocessor says what size it gets.
        count: How many.
        masks: ``centre`` for a box that leaves out an eighth at each border; ``boxes`` for those of the data set's
            annotations; else a folder with an image for each, ``STEM_OF_ITS_FILE.png`` or ``INDEX.png``, in which
            foreground is what is not 0.
        cells: In each direction.
        skip_empty: Leave out images without foreground or without background.

    Raises:
        ValueError: If the config has no test data or not so many images, or masks are missing, of other sizes, or
            leave an image without foreground or background.
    """
    dataset = _dataset(config)
    if not 1 <= count <= len(dataset):
        raise ValueError(f'{count} images given, the test data has {len(dataset)}')
    if masks not in ('centre', 'boxes') and not Path(masks).is_dir():
        raise ValueError(f"masks '{masks}' given, expected 'centre', 'boxes', or a folder, and there is no such folder")
    pipeline = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    moved = [type(t).__name__ for t in pipeline if any(w in type(t).__name__ for w in ('Crop', 'Flip', 'Rotate'))]
    samples, empty = [], []
    for index in (len(dataset) * i // count for i in range(count)):
        data = dataset[index]
        info = dataset.get_data_info(index)
        batch = pseudo_collate([data])
        inputs = data['inputs']
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        height, width = inputs_of(model, batch).shape[-2:]
        padded = (height, width)
        name = Path(info.get('img_path') or f'{index}').name
        where = f'image {index} ({name})'
        if masks == 'centre':
            mask = _centre(size)
        elif masks == 'boxes':
            mask = _boxes(info, _original(data, info), size, where, moved)
        else:
            mask = _read_mask(Path(masks), name, index, _original(data, info), size, where, moved)
        foreground, background = _cells_of(mask, padded, cells)
        if bool(foreground.any()) and bool(background.any()):
            shown = input_image(inputs, _reverses(model) or 'img' not in info)
            samples.append(Sample(index, name, batch, shown, padded, foreground, background))
        else:
            empty.append(f'{where} has no {"background" if bool(foreground.any()) else "foreground"}')
    if empty and not (skip_empty and samples):
        raise ValueError(
            f'with {cells}x{cells} cells {"; ".join(empty[:5])}{"; ..." if len(empty) > 5 else ""}; concepts need '
            'both: give other masks or more cells, or leave such images out with --skip-empty'
        )
    return samples


def first_inputs(config: Config, model: Any) -> Tensor:
    """What a model gets of the first image, (1, C, H, W)."""
    return inputs_of(model, pseudo_collate([_dataset(config)[0]]))


def _dataset(config: Config) -> Any:
    loader = config.get('test_dataloader') or config.get('val_dataloader')
    if not loader:
        raise ValueError('the config has no test_dataloader and no val_dataloader, expected one: its images are read')
    return DATASETS.build(loader.dataset)


def inputs_of(model: Any, batch: Any) -> Tensor:
    """What a model's data preprocessor makes of one image, (1, C, H, W)."""
    inputs = model.data_preprocessor(copy.deepcopy(batch), False)['inputs']
    return inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs))


def digest_of(inputs: Tensor, valid: Tensor) -> str:
    """A short name for what a network gets of an image."""
    found = hashlib.sha256(inputs.detach().cpu().float().contiguous().numpy().tobytes())
    found.update(valid.numpy().tobytes())
    return found.hexdigest()[:20]


def _original(data: Mapping[str, Any], info: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the image's file."""
    shape: Any = data['data_samples'].metainfo.get('ori_shape') or (info.get('height'), info.get('width'))
    return (int(shape[0]), int(shape[1])) if shape[0] else None


def _centre(size: tuple[int, int]) -> Tensor:
    mask = torch.zeros(size)
    top, left = (round(side / _CENTRE) for side in size)
    mask[top : size[0] - top, left : size[1] - left] = 1
    return mask


def _boxes(info: Mapping[str, Any], original: Any, size: tuple[int, int], where: str, moved: Sequence[str]) -> Tensor:
    if 'instances' not in info or original is None:
        raise ValueError(
            f"{where} has no boxes, expected the annotations of a data set of mmdet: give masks='centre' or a folder"
        )
    if moved:
        raise ValueError(f'boxes cannot be followed through {", ".join(moved)} of the test pipeline: give a folder')
    mask = torch.zeros(size)
    down, right = size[0] / original[0], size[1] / original[1]
    for one in info['instances']:
        x1, y1, x2, y2 = one['bbox']
        mask[
            max(0, round(y1 * down)) : max(0, round(y2 * down)), max(0, round(x1 * right)) : max(0, round(x2 * right))
        ] = 1
    return mask


def _read_mask(
    folder: Path, name: str, index: int, original: Any, size: tuple[int, int], where: str, moved: Sequence[str]
) -> Tensor:
    files = [folder / f'{Path(name).stem}.png', folder / f'{index}.png']
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise ValueError(f'{where} has no mask: looked for {" and ".join(map(str, dict.fromkeys(files)))}')
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"'{path}' is no image that OpenCV reads")
    found = image.any(-1) if image.ndim == 3 else image > 0
    mask = torch.from_numpy(np.ascontiguousarray(found)).float()
    if mask.shape == size:
        return mask
    if original is not None and mask.shape == original and not moved:
        return interpolate(mask[None, None], size, mode='nearest-exact')[0, 0]
    also = '' if original is None or original == size or moved else f' or, as its file, {original[0]}x{original[1]}'
    raise ValueError(
        f"the mask '{path}' has {mask.shape[0]}x{mask.shape[1]} pixels, expected {size[0]}x{size[1]}, as the network "
        f'gets {where}{also}'
    )


def _cells_of(mask: Tensor, padded: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Cells of foreground and of background; what lies over padding is neither."""
    there, inside = torch.zeros(2, *padded)
    there[: mask.shape[0], : mask.shape[1]] = 1
    inside[: mask.shape[0], : mask.shape[1]] = mask
    cells = Cells(count, padded)
    valid, part = cells.mean(there), cells.mean(inside)
    foreground = (valid > 0.5) & (part > 0.5 * valid)
    return foreground, (valid > 0.5) & ~foreground


def _reverses(model: Any) -> bool:
    preprocessor = model.data_preprocessor
    return bool(getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False))
