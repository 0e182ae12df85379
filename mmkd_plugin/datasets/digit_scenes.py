"""The embedded `digit_scenes` sample: object detection on pictures rendered from real digits, no download."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
from mmengine.registry import DATASETS
from rich.console import Console
from rich.progress import track

from .digits import check_classes, load_digits

CLASSES = tuple('0123456789')
#: Scenes in each split; those of the training split show other digits than those of the test split.
SPLITS = {'train': 600, 'test': 200}
SIZE = 160
# the folder's name: rendering that changes in any way needs another number
_NAME = 'digit_scenes-1'
_DIGITS_PER_CLASS, _TRAIN_PER_CLASS = 500, 400


class Box(NamedTuple):
    """A digit in a scene: class and pixels, first and last that it covers."""

    label: int
    x1: int
    y1: int
    x2: int
    y2: int


def digit_scenes_root(root: str | Path | None = None) -> Path:
    """The folder of the sample in PASCAL VOC layout; rendered where it is not there yet.

    Rendering takes a few seconds, shows a progress bar, and is the same on every machine up to the
    JPEG encoder. The folder appears whole or not at all, also when several processes start at once.

    Args:
        root: Where the folder is kept; None is ``mmkd_plugin`` in the user's cache folder
            (``$XDG_CACHE_HOME`` or ``~/.cache``).

    Returns:
        A folder with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.

    Raises:
        ModuleNotFoundError: If the digits are not installed, see :func:`load_digits`.
        OSError: If the folder cannot be written.
    """
    if root is None:
        root = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mmkd_plugin'
    folder = Path(root) / _NAME
    if not _whole(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix=f'{_NAME}-unfinished-', dir=folder.parent))
        except OSError as error:
            raise OSError(
                f'the digit_scenes sample cannot be rendered into {folder.parent} ({error}): set XDG_CACHE_HOME to a '
                "folder that can be written, or say root='...' in each dataset of the config"
            ) from error
        try:
            _write(unfinished)
            unfinished.chmod(0o755)
            unfinished.rename(folder)
        except OSError:
            if not _whole(folder):  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _whole(folder: Path) -> bool:
    return (folder / 'ImageSets/Main/test.txt').is_file()  # written last


@DATASETS.register_module()
def DigitScenes(  # noqa: N802 (it stands where a config names a class)
    split: str = 'train',
    images: int | None = None,
    root: str | None = None,
    classes: Sequence[int] | None = None,
    **kwargs: Any,
) -> Any:
    """Mmdet's ``VOCDataset`` of 160x160 colour pictures with one to five digits, classes 0 to 9.

    Args:
        split: ``train`` (600 pictures) or ``test`` (200).
        images: The first so many of them; None is all.
        root: See :func:`digit_scenes_root`.
        classes: Only boxes of these digits, and pictures that have one; labels and names as of :class:`Digits`. The
            other digits stay in the pictures, and are background.
        **kwargs: See ``VOCDataset``: ``pipeline``, ``test_mode``, ``filter_cfg``, ``metainfo`` ...

    Raises:
        ValueError: If the split, the number or the classes are not one of these.
    """
    digits, names = check_classes(classes)
    if split not in SPLITS:
        raise ValueError(f"split={split!r} given, expected 'train' or 'test'")
    if images is not None and (not isinstance(images, int) or not 1 <= images <= SPLITS[split]):
        raise ValueError(
            f"images={images!r} given, expected a whole number from 1 to {SPLITS[split]} (split='{split}')"
        )
    kwargs = {
        'data_root': str(digit_scenes_root(root)),
        'ann_file': f'ImageSets/Main/{split}.txt',
        'data_prefix': {'sub_data_root': ''},
        'indices': images,
        'metainfo': {'classes': names},
        'serialize_data': False,  # as in Digits
        **kwargs,
    }
    # only where a detector is met
    if classes is not None:
        from .boxes_of_classes import BoxesOfClasses

        return BoxesOfClasses(digits, **kwargs)
    from mmdet.datasets import VOCDataset

    return VOCDataset(**kwargs)


def _write(folder: Path) -> None:
    for name in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (folder / name).mkdir(parents=True)
    for split, count in SPLITS.items():
        names = [f'{split}_{index:04d}' for index in range(count)]
        pictures = track(scenes(split), f'rendering digit_scenes, {split}', total=count, console=Console(stderr=True))
        for name, (picture, boxes) in zip(names, pictures, strict=True):
            target = folder / 'JPEGImages' / f'{name}.jpg'
            if not cv2.imwrite(str(target), picture, [cv2.IMWRITE_JPEG_QUALITY, 95]):
                raise OSError(f'could not write {target}: is the disk full?')
            _annotation(name, boxes).write(folder / 'Annotations' / f'{name}.xml')
        (folder / 'ImageSets/Main' / f'{split}.txt').write_text('\n'.join(names) + '\n')


def scenes(split: str) -> Iterator[tuple[np.ndarray, list[Box]]]:
    """Pictures (160, 160, 3) uint8 with their boxes, always the same for a split."""
    images, labels = load_digits()
    position = np.arange(len(labels)) % _DIGITS_PER_CLASS
    usable = np.flatnonzero((position < _TRAIN_PER_CLASS) == (split == 'train'))
    for index in range(SPLITS[split]):
        rng = np.random.default_rng([list(SPLITS).index(split), index])
        picture = _background(rng)
        boxes: list[Box] = []
        for row in rng.choice(usable, size=rng.integers(1, 6), replace=False):
            _place(picture, boxes, images[row], int(labels[row]), rng)
        yield picture.round().clip(0, 255).astype(np.uint8), boxes


def _background(rng: np.random.Generator) -> np.ndarray:
    """Soft colours, grain, and strokes that are no digits."""
    coarse = rng.uniform(70, 185, size=3) + rng.uniform(-45, 45, size=(5, 5, 3))
    picture = cv2.resize(np.asarray(coarse, np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(2, 7)):
        start, end = rng.integers(0, SIZE, size=(2, 2)).tolist()
        cv2.line(picture, start, end, rng.uniform(0, 255, size=3).tolist(), int(rng.integers(1, 5)))
    return picture + np.asarray(rng.normal(0, 8, size=picture.shape), np.float32)


def _place(picture: np.ndarray, boxes: list[Box], digit: np.ndarray, label: int, rng: np.random.Generator) -> None:
    """Draw one digit where it covers no other; not at all where 20 tries find no place."""
    rows, columns = np.flatnonzero(digit.any(1)), np.flatnonzero(digit.any(0))
    tight = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height = int(rng.integers(20, 61))
    width = max(6, round(height * tight.shape[1] / tight.shape[0]))
    ink = cv2.resize(tight, (width, height), interpolation=cv2.INTER_LINEAR)[:, :, None].astype(np.float32) / 255
    for _ in range(20):
        x, y = rng.integers(0, SIZE - width), rng.integers(0, SIZE - height)
        box = Box(label, int(x), int(y), int(x) + width - 1, int(y) + height - 1)
        if not any(_overlap(box, other) for other in boxes):
            break
    else:
        return
    patch = picture[y : y + height, x : x + width]
    ground = np.mean(patch, axis=(0, 1))
    # far enough from what is below to be seen, in each channel lighter or darker
    shift = rng.uniform(60, 130, size=3) * rng.choice([-1, 1])
    colour = np.where((ground + shift < 0) | (ground + shift > 255), ground - shift, ground + shift)
    patch += ink * (colour - patch)
    boxes.append(box)


def _overlap(a: Box, b: Box) -> bool:
    return a.x1 <= b.x2 and b.x1 <= a.x2 and a.y1 <= b.y2 and b.y1 <= a.y2


def _annotation(name: str, boxes: list[Box]) -> ElementTree.ElementTree:
    root = ElementTree.Element('annotation')
    ElementTree.SubElement(root, 'filename').text = f'{name}.jpg'
    size = ElementTree.SubElement(root, 'size')
    for tag, value in (('width', SIZE), ('height', SIZE), ('depth', 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for box in boxes:
        item = ElementTree.SubElement(root, 'object')
        ElementTree.SubElement(item, 'name').text = CLASSES[box.label]
        ElementTree.SubElement(item, 'difficult').text = '0'
        corners = ElementTree.SubElement(item, 'bndbox')
        for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box[1:], strict=True):
            ElementTree.SubElement(corners, tag).text = str(value + 1)  # VOC counts pixels from 1
    return ElementTree.ElementTree(root)
