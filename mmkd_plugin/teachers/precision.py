"""A frozen teacher that computes in another precision than the student, whatever autocast the student runs in."""

import difflib
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from ..losses.base import full_precision
from ..networks import Tap
from ..options import check_number

_DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
#: What a CPU must have to multiply faster than in float32, as Linux calls it.
_UNITS = {torch.bfloat16: {'amx_bf16', 'avx512_bf16', 'bf16'}, torch.float16: {'amx_fp16'}}
_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
_EXAMPLE = "'fp32', 'bf16', 'fp16' or dict(type='bf16', tolerance=0.1)"


@dataclass(frozen=True)
class Precision:
    """What a teacher computes in.

    Args:
        dtype: float32, bfloat16 or float16.
        tolerance: How much of their spread the tapped values may lose to rounding: root mean square of the
            difference from float32, relative to that of what differs from image to image.
    """

    dtype: torch.dtype
    tolerance: float = 0.1

    @property
    def is_low(self) -> bool:
        """Whether it is less than float32."""
        return self.dtype != torch.float32

    @classmethod
    def read(cls, given: Any, name: str) -> 'Precision | None':
        """What a config says; None, which leaves it to the student's batch and its autocast, if that is nothing.

        Raises:
            ValueError: If it is not understood.
        """
        if given is None:
            return None
        options = dict(given) if isinstance(given, Mapping) else {'type': given}
        kind = options.pop('type', None)
        if not isinstance(kind, str) or kind not in _DTYPES or not options.keys() <= {'tolerance'}:
            near = difflib.get_close_matches(str(kind), _DTYPES, n=1)
            raise ValueError(
                f'{name}: precision={given!r} given, expected {_EXAMPLE}'
                + (f' (is {near[0]!r} meant?)' if near else '')
            )
        if kind == 'fp32' and options:
            raise ValueError(f"{name}: precision={given!r} given, and 'fp32' loses nothing: drop tolerance")
        tolerance = check_number(options.get('tolerance', cls.tolerance), f'{name}: precision.tolerance', above=True)
        return cls(_DTYPES[kind], tolerance)

    def check(self, name: str, expected: Mapping[Tap, Tensor], got: Mapping[Tap, Tensor], logits: Tap | None) -> None:
        """Log what tapped values lose.

        Args:
            name: What the teacher is called.
            expected: Computed in float32.
            got: Computed in this precision.
            logits: Which of them are class scores.

        Raises:
            ValueError: If one loses more than ``tolerance``, or is not finite.
        """
        lost = {tap: lost_of_spread(got[tap], expected[tap]) for tap in expected}
        told = ', '.join(f'{tap} {100 * part:.2g} %' for tap, part in lost.items())
        if logits is not None and logits in expected and expected[logits].ndim == 2:
            told += f'; KL {_kl(got[logits], expected[logits]):.2g} nats at {logits}'
        kind = next(name for name, dtype in _DTYPES.items() if dtype == self.dtype)
        print_log(f'{name}: computes in {kind}, and loses of the spread of its values: {told}', 'current')
        worst = max(lost, key=lambda tap: lost[tap])
        if lost[worst] > self.tolerance:
            asked = f'dict(type={kind!r}, tolerance={_rounded_up(lost[worst])})' if math.isfinite(lost[worst]) else ''
            raise ValueError(
                f"{name}: in {kind} '{worst}' loses {100 * lost[worst]:.3g} % of the spread of its values, and at most "
                f"{100 * self.tolerance:.3g} % are allowed. Say precision='fp32'"
                + (f', or precision={asked} to allow it' if asked else '')
            )


@torch.no_grad()
def lost_of_spread(got: Tensor, expected: Tensor) -> float:
    """Root mean square of a difference, relative to that of what differs from row to row; infinite if not finite.

    Of a single row, relative to what differs within it.

    Args:
        got: (N, ...).
        expected: Of the same shape.

    Example:
        >>> lost_of_spread(torch.tensor([1.0, 3.5]), torch.tensor([1.0, 3.0]))
        0.35355...
    """
    got, expected = got.double(), expected.double()
    same = torch.isfinite(expected)  # masked scores are infinite in both
    error = torch.where(same, got - expected, (got != expected).double()).square().mean().sqrt()
    kept = torch.where(same, expected, 0)
    spread = (kept - (kept.mean(0, keepdim=True) if len(kept) > 1 else kept.mean())).square().mean().sqrt()
    part = float(error / spread.clamp_min(1e-12)) if float(error) else 0.0
    return part if math.isfinite(part) else math.inf


def _kl(got: Tensor, expected: Tensor) -> float:
    """From what is expected to what was got, temperature 1, mean over rows."""
    given, target = (value.double().log_softmax(1) for value in (got, expected))
    return float(F.kl_div(given, target, reduction='batchmean', log_target=True))


def _rounded_up(part: float) -> float:
    """To two digits."""
    unit = 10.0 ** (math.floor(math.log10(part)) - 1)
    return float(f'{math.ceil(part / unit) * unit:.2g}')


def example_images(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Images of noise at several scales, as natural ones have: white noise alone would all look the same to a network.

    Args:
        shape: (N, C, H, W).
        like: Of their device and dtype.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(*shape, generator=generator)
    for scale in (4, 16, 64):
        sides = [max(1, side // scale) for side in shape[2:]]
        coarse = torch.randn(*shape[:2], *sides, generator=generator)
        images += F.interpolate(coarse, size=shape[2:], mode='nearest')
    return (images / 2).to(like)  # of variance 1


def computes_fast(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device multiplies faster in a precision than in float32, by what it says of itself."""
    if device.type == 'cuda':
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != 'cpu':
        return True
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:  # not Linux
        return False
    flags = next((line for line in lines if line.lower().startswith(('flags', 'features'))), '')
    return bool(_UNITS[dtype] & set(flags.split()))


def usable(precision: Precision, name: str, device: torch.device) -> bool:
    """Whether to compute in it; says so where it would be slower than float32."""
    if not precision.is_low or computes_fast(precision.dtype, device):
        return precision.is_low
    where = (
        f' (/proc/cpuinfo lists none of {", ".join(sorted(_UNITS[precision.dtype]))})' if device.type == 'cpu' else ''
    )
    print_log(
        f'{name}: this {device.type.upper()} has no units for {precision.dtype}{where}, so that it would be slower '
        'than float32: float32 is used',
        'current',
        logging.WARNING,
    )
    return False


@contextmanager
def computing(dtype: torch.dtype, device: str) -> Iterator[None]:
    """Autocast to a precision, or to none for float32, whatever is on outside; frozen weights are in no cache of it."""
    low = dtype != torch.float32
    with torch.autocast(device, dtype=dtype if low else None, enabled=low):
        yield


class LowWeights:
    """Weights of a network cast once, instead of in each pass: autocast keeps no casts of frozen ones.

    Only plain convolutions and linear layers, which autocast gives its precision. The rest (norms that were not folded,
    embeddings, layers that compute their weights) stays float32, and autocast does with it what it always does.

    Args:
        model: In float32; changed in place.
        dtype: bfloat16 or float16.
        whole: Paths of modules that compute in float32, whatever their inputs: mmdet's RoI extractors cast RoIs to what
            the feature maps are in; classifiers whose scores are read. So do mmcv's compiled operations, which know no
            bfloat16 on a CPU.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, whole: Collection[str] = ()) -> None:
        modules = dict(model.named_modules())
        full = {path for path, module in modules.items() if path in whole or _is_compiled_op(module)}
        for path in full:
            modules[path].forward = full_precision(modules[path].forward)
        full |= {path for path, module in modules.items() if _casts_by_itself(module)}
        inside = tuple(f'{path}.' for path in full)
        self._dtype = dtype
        self._layers = [m for path, m in modules.items() if _is_plain(m) and not f'{path}.'.startswith(inside)]
        self._cast(dtype)

    def _cast(self, dtype: torch.dtype) -> None:
        for layer in self._layers:
            layer.to(dtype)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Inside the block they are float32, as rounded."""
        self._cast(torch.float32)
        try:
            yield
        finally:
            self._cast(self._dtype)


def _is_compiled_op(module: nn.Module) -> bool:
    return any(cls.__module__.startswith('mmcv.ops.') for cls in type(module).__mro__)


def _casts_by_itself(module: nn.Module) -> bool:
    """Whether it reads weights of its children: torch's attention has kernels of its own."""
    return isinstance(module, (nn.MultiheadAttention, nn.TransformerEncoderLayer))


def _is_plain(module: nn.Module) -> bool:
    """Whether its forward is torch's own (or mmcv's for empty inputs), on weights that are parameters."""
    kind = next((cls for cls in _PLAIN if isinstance(module, cls)), None)
    if kind is None or module._forward_pre_hooks or not isinstance(module._parameters.get('weight'), nn.Parameter):
        return False
    forward = type(module).forward
    return forward is kind.forward or forward.__module__ == 'mmcv.cnn.bricks.wrappers'
