"""What a layer discards of an image: noise as strong as the feature allows, cell by cell.

X. Cheng, Z. Rao, Y. Chen, Q. Zhang, "Explaining Knowledge Distillation by Quantifying the Knowledge", CVPR 2020, arXiv
2003.03622, section 3.1; the measure is from arXiv 1906.04109. Numbers are those of their code.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..options import check_bool, check_number, check_whole
from .cells import Cells

#: Of a normal distribution with standard deviation 1, in nats.
UNIT_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
_REFERENCE_CELLS = 256  # that the learning rate is meant for


@dataclass(frozen=True)
class Setting:
    """How the noise is found.

    Attributes:
        cells: In each direction; all colours of a cell share one standard deviation.
        noise: Samples in each step.
        steps: Of the optimiser.
        lr: Its learning rate, for 256 cells: a gradient is that of a mean over cells, so with another number of cells
            the rate is multiplied by their number / 256, and the same image gets on as fast.
        weight: Of the entropy against the feature's change; the paper's code has 6 for ResNet, 7 for VGG and AlexNet.
        optimizer: ``sgd``, without momentum on the standard deviations, as the paper's code; or ``adam`` on their
            logarithms.
        start: Standard deviation at the beginning, and that of the noise which the feature's scale is measured with.
        low: The least that is allowed.
        high: The most.
        target: Mean entropy of an image, in nats, at which networks, layers and checkpoints are compared.
        late: Of ``steps``, after which an image that has passed the target is finished, and the others get on with
            ``boost`` times the weight.
        boost: See ``late``.
        relu: Compare features behind a ReLU, as the paper's code does.
        seed: Of the noise.

    Raises:
        ValueError: If a value is of another kind or out of range.
    """

    cells: int = 16
    noise: int = 96
    steps: int = 80
    lr: float = 1e-4
    weight: float = 6.0
    optimizer: Literal['sgd', 'adam'] = 'sgd'
    start: float = 0.01
    low: float = 0.001
    high: float = 1.0
    target: float = -2.8
    late: int = 60
    boost: float = 1.5
    relu: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('cells', 'noise', 'steps'):
            check_whole(getattr(self, name), name, low=1)
        for name in ('late', 'seed'):
            check_whole(getattr(self, name), name)
        for name in ('lr', 'weight', 'boost', 'low'):
            check_number(getattr(self, name), name, above=True)
        check_number(self.high, 'high', low=self.low, above=True)
        check_number(self.start, 'start', low=self.low, high=self.high)
        check_number(self.target, 'target', low=float(entropy(self.low)), high=float(entropy(self.high)))
        check_bool(self.relu, 'relu')
        if self.optimizer not in ('sgd', 'adam'):
            raise ValueError(f"optimizer={self.optimizer!r} given, expected 'sgd' or 'adam'")

    @property
    def passes(self) -> int:
        """Images that go forward (and but for one in ``steps + 1`` backward) through the network for each image."""
        return self.noise * (self.steps + 1)


@dataclass(frozen=True)
class Discarding:
    """What was found for N images.

    Attributes:
        sigma: Standard deviations (N, h, w), in units of the normalised image.
        scale: (N,), the feature's mean squared change under noise of ``Setting.start``; 0 where it does not react.
        step: (N,), the one whose standard deviations these are, from 1; 0 where the scale is 0.
        usable: (N,), False where the scale is 0 or every cell is at the least or the most that is allowed.
    """

    sigma: Tensor
    scale: Tensor
    step: Tensor
    usable: Tensor

    @property
    def entropy(self) -> Tensor:
        """Of each cell (N, h, w), in nats: larger where more is discarded."""
        return entropy(self.sigma)


def entropy(sigma: Tensor | float) -> Tensor:
    """Of normal noise: ``log(sigma) + 0.5 log(2 pi e)``, in nats.

    Args:
        sigma: Standard deviations.

    Example:
        >>> round(float(entropy(0.01)), 5)
        -3.18623
    """
    given = sigma if isinstance(sigma, Tensor) else torch.tensor(sigma, dtype=torch.float64)
    return given.log() + UNIT_ENTROPY


def discard(
    feature: Callable[[Tensor], Tensor],
    images: Tensor,
    setting: Setting | None = None,
    keys: Sequence[int] | None = None,
    valid: Tensor | None = None,
    rows: int = 96,
) -> Discarding:
    """Find for each image the noise of largest entropy that leaves a feature nearly as it is.

    Minimises ``E ||f(x + noise) - f(x)||^2 / scale - weight * mean entropy`` over the standard deviations of the cells,
    for all images at once and for each by itself: its noise follows from the seed and its key, so that it gets the same
    result, up to rounding, in whatever company. Of all steps that one counts whose mean entropy is nearest the target.

    Args:
        feature: Images (n, C, H, W) to features (n, ...), row by row: a network in evaluation mode whose weights want
            no gradient, see :class:`.Tapped`.
        images: (N, C, H, W), normalised.
        setting: Default: the paper's.
        keys: Of each image a number of its own, not negative; default: its place.
        valid: (N, h, w), the cells that count; the others (padding) get no noise. Default: all.
        rows: At most so many go through the network at once, which decides over memory.

    Raises:
        ValueError: If arguments do not fit each other, an image has no valid cell, or ``feature`` mixes rows or gives
            values that are not finite.
    """
    setting = setting or Setting()
    check_whole(rows, 'rows', low=1)
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise ValueError(f'images {images.dtype} {tuple(images.shape)} given, expected floats (N, C, H, W)')
    keys = list(range(len(images))) if keys is None else [check_whole(key, 'keys') for key in keys]
    cells = Cells(setting.cells, (images.shape[2], images.shape[3]), images)
    grid = (len(images), setting.cells, setting.cells)
    valid = images.new_ones(grid) if valid is None else valid.to(images)
    if len(keys) != len(images) or valid.shape != grid or not bool(valid.flatten(1).any(1).all()):
        raise ValueError(
            f'{len(images)} images, {len(keys)} keys and valid cells {tuple(valid.shape)} given, expected as many '
            f'keys, and {grid} of which each image has some'
        )
    return _Search(feature, images, setting, keys, valid, cells, rows).run()


class _Search:
    """The optimisation for some images of one size."""

    def __init__(
        self,
        feature: Callable[[Tensor], Tensor],
        images: Tensor,
        setting: Setting,
        keys: Sequence[int],
        valid: Tensor,
        cells: Cells,
        rows: int,
    ) -> None:
        self.images, self.setting, self.valid, self.cells, self.rows = images, setting, valid, cells, rows
        self._feature = feature
        self._numbers = valid.flatten(1).sum(1)[:, None, None]  # of cells that count
        self._generators = [_generator(setting.seed, key, images.device) for key in keys]
        with torch.no_grad():
            parts = range(0, len(images), rows)
            self._clean = torch.cat([self._features(images[i : i + rows]) for i in parts])
            start = images.new_full(valid.shape, setting.start)
            self.scale = images.new_zeros(len(images), dtype=self._clean.dtype)
            for index, changes in self._changes(start, torch.arange(len(images))):
                self.scale[index] += changes
        if not bool(torch.isfinite(self.scale).all()):
            bad = (~torch.isfinite(self.scale)).nonzero().flatten().tolist()
            raise ValueError(f'features of the images {[keys[i] for i in bad]} are not finite, with noise or without')

    def _features(self, images: Tensor) -> Tensor:
        values = self._feature(images)
        if len(values) != len(images):
            raise ValueError(
                f'the feature of {len(images)} images is {tuple(values.shape)}, expected a row for each image: tap a '
                'module that runs on whole images'
            )
        values = values.flatten(1)
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        return values.relu() if self.setting.relu else values

    def _changes(self, sigma: Tensor, chosen: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Under fresh noise, in parts that fit: which images, and what they add to the mean squared change of each."""
        samples = self.setting.noise
        together = max(1, self.rows // samples)
        for index in torch.split(chosen, together):
            noise = torch.stack([self._noise(int(i)) for i in index])
            for part in torch.split(noise, min(self.rows, samples), 1):
                spread = self.cells.spread(sigma[index] * self.valid[index])[:, None, None]
                shown = self.images[index][:, None] + spread * part
                values = self._features(shown.flatten(0, 1)).reshape(*part.shape[:2], -1)
                yield index, (values - self._clean[index][:, None]).square().mean(2).sum(1) / samples

    def _noise(self, i: int) -> Tensor:
        shape = (self.setting.noise, *self.images.shape[1:])
        generator = self._generators[i]
        return torch.randn(shape, generator=generator, device=self.images.device, dtype=self.images.dtype)

    def mean_entropy(self, sigma: Tensor) -> Tensor:
        """Of the cells that count, (N,)."""
        return ((entropy(sigma) * self.valid) / self._numbers).flatten(1).sum(1)

    def run(self) -> Discarding:
        """All steps, each image as far as it needs."""
        setting = self.setting
        sigma = self.images.new_full(self.valid.shape, setting.start)
        best, step = sigma.clone(), torch.zeros_like(self.scale, dtype=torch.long)
        distance = torch.full_like(self.scale, math.inf)
        weight = torch.full_like(self._numbers, setting.weight)
        update = _UPDATES[setting.optimizer](setting, self._numbers)
        active = self.scale > 0
        for number in range(1, setting.steps + 1):
            if not bool(active.any()):
                break
            chosen = active.nonzero().flatten().cpu()
            gradient = self._gradient(sigma, chosen) - weight / (self._numbers * sigma) * self.valid
            moved = update(sigma, gradient, number).clamp(setting.low, setting.high)
            sigma = torch.where(active[:, None, None] & (self.valid > 0), moved, sigma)
            mean = self.mean_entropy(sigma)
            nearer = active & ((mean - setting.target).abs() < distance)
            distance = torch.where(nearer, (mean - setting.target).abs(), distance)
            best = torch.where(nearer[:, None, None], sigma, best)
            step = torch.where(nearer, number, step)
            if number == setting.late:
                active = active & (mean <= setting.target)
                weight = weight * setting.boost
        at_end = (best <= setting.low) | (best >= setting.high) | (self.valid == 0)
        return Discarding(best, self.scale, step, (self.scale > 0) & ~at_end.flatten(1).all(1))

    def _gradient(self, sigma: Tensor, chosen: Tensor) -> Tensor:
        """Of the feature's change, over the standard deviations."""
        leaf = sigma.detach().requires_grad_()
        total = torch.zeros_like(sigma)
        with torch.enable_grad():
            for index, changes in self._changes(leaf, chosen):
                total += torch.autograd.grad((changes / self.scale[index]).sum(), leaf)[0]
        if not bool(torch.isfinite(total).all()):
            raise ValueError('the gradient of the feature is not finite')
        return total


def _generator(seed: int, key: int, device: torch.device) -> torch.Generator:
    state = np.random.SeedSequence([seed, key]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]) >> 1)


class _SGD:
    """Without momentum, on the standard deviations."""

    def __init__(self, setting: Setting, numbers: Tensor) -> None:
        self._lr = setting.lr * numbers / _REFERENCE_CELLS

    def __call__(self, sigma: Tensor, gradient: Tensor, step: int) -> Tensor:
        return sigma - self._lr * gradient


class _Adam:
    """On the logarithms of the standard deviations, with torch's default constants."""

    def __init__(self, setting: Setting, numbers: Tensor) -> None:
        self._lr = setting.lr
        self._mean = self._square = torch.zeros((), device=numbers.device)

    def __call__(self, sigma: Tensor, gradient: Tensor, step: int) -> Tensor:
        gradient = gradient * sigma
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.999 * self._square + 0.001 * gradient.square()
        root = (self._square / (1 - 0.999**step)).sqrt() + 1e-8
        return (sigma.log() - self._lr * self._mean / (1 - 0.9**step) / root).exp()


_UPDATES: dict[str, type[_SGD] | type[_Adam]] = {'sgd': _SGD, 'adam': _Adam}
