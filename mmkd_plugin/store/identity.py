"""What records depend on, as plain data that can be compared: pipelines, data, versions, preprocessing."""

import hashlib
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.fingerprint import fingerprint
from ..datasets.indexed import owners

#: How a view is drawn; another text for another way.
SEEDS = 'python, numpy and torch from SeedSequence([seed, view, index]), 1'
# what decodes, transforms and draws; the first that is installed of those that share a module
_PACKAGES = (
    ('mmengine', 'onedl-mmengine'), ('mmcv', 'mmcv-lite', 'onedl-mmcv'), ('mmpretrain', 'onedl-mmpretrain'),
    ('mmdet', 'onedl-mmdetection'), ('numpy',), ('pillow',), ('opencv-python', 'opencv-python-headless'), ('torch',),
    ('torchvision',),
)  # fmt: skip
_DEEPEST = 8


def versions() -> dict[str, str]:
    """Those of the packages whose defaults and generators decide what a view looks like."""
    return {names[0]: found for names in _PACKAGES if (found := next(_found(names), None))}


def _found(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        try:
            yield f'{name} {importlib.metadata.version(name)}'
        except importlib.metadata.PackageNotFoundError:
            continue


def identity_of_data(dataset: Any) -> dict[str, Any]:
    """How many entries there are, of which classes, and a digest of files and labels in order.

    Args:
        dataset: mmengine's, or its wrappers.

    Raises:
        ValueError: If a data set does not tell its entries without loading them.
    """
    for owner in owners(dataset):
        if not hasattr(owner, 'get_data_info'):
            raise ValueError(
                f'store: {type(owner).__name__} does not tell which samples it has without loading them, so '
                "that nobody could say whose knowledge is kept: expected mmengine's BaseDataset, or wrappers of such"
            )
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    told = None if classes is None else [str(name) for name in classes]
    return {'entries': len(dataset), 'classes': told, 'digest': fingerprint(dataset, contents=True)}


def identity_of_pipeline(dataset: Any) -> list[Any]:
    """The transforms of all data sets, with all that they were made with, defaults too.

    Args:
        dataset: mmengine's, or its wrappers.
    """
    return [[describe(t) for t in pipeline_of(owner)] for owner in owners(dataset)]


def pipeline_of(owner: Any) -> list[Any]:
    """The transforms of a data set."""
    pipeline = getattr(owner, 'pipeline', None)
    return list(getattr(pipeline, 'transforms', pipeline) or ())


def describe(value: Any, depth: int = 0) -> Any:
    """Anything as plain data: what it is, and what it holds."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        small = value.size <= 16 and value.dtype.kind in 'biuf'
        return value.tolist() if small else f'{value.shape} {value.dtype} {sha256_of(value.tobytes())}'
    if isinstance(value, Path):
        return str(value)
    if depth > _DEEPEST:
        return type(value).__qualname__
    if isinstance(value, Mapping):
        return {str(key): describe(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item, depth + 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(describe(item, depth + 1)) for item in value)
    if isinstance(value, type) or (callable(value) and hasattr(value, '__qualname__')):
        return f'{value.__module__}.{value.__qualname__}'
    kind = f'{type(value).__module__}.{type(value).__qualname__}'
    if not hasattr(value, '__dict__'):
        return re.sub(r' at 0x[0-9a-f]+', '', repr(value))
    return {'type': kind, **{name: describe(item, depth + 1) for name, item in sorted(vars(value).items())}}


def identity_of_preprocessing(teacher: nn.Module | None, student: nn.Module | None) -> dict[str, Any]:
    """What becomes of an image before the teacher sees it: by its own data preprocessor, else by the student's."""
    made_by = teacher if teacher is not None else student
    names = ('mean', 'std', 'channel_conversion', '_channel_conversion', 'pad_value', 'pad_size_divisor')
    told = {name.strip('_'): describe(getattr(made_by, name, None)) for name in names if hasattr(made_by, name)}
    return {'type': type(made_by).__name__, **told}


def sha256_of(content: bytes) -> str:
    """Of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_weights(state: Mapping[str, Any]) -> str:
    """Of a state dict: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for name, value in state.items():
        if isinstance(value, Tensor):
            digest.update(f'{name} {tuple(value.shape)} {value.dtype}\n'.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
