"""What tapped values and optimizers are like, in numbers."""

from typing import Any

import torch
from torch import Tensor

from .measured import TapFacts


def facts_of(loss: str, side: str, tap: str, value: Tensor) -> TapFacts:
    """Of a value (N, ...) or (N, C, ...), in float32."""
    channels = value.transpose(0, 1).flatten(1) if value.ndim > 1 else value[None]
    rms = float(value.square().mean().sqrt())
    dead = float((channels == 0).all(1).float().mean())
    spread = channels.std(1, unbiased=False) if channels.shape[1] > 1 else torch.ones(len(channels))
    constant = float((spread <= 1e-6 * max(rms, 1e-12)).float().mean())
    return TapFacts(loss, side, tap, tuple(value.shape), rms, dead, constant)


def entropy(logits: Tensor) -> float:
    """Of predictions (N, C), the mean over rows, divided by the highest there is; in [0, 1]."""
    logs = logits.log_softmax(1)
    entropy = -(logs.exp() * logs.nan_to_num(neginf=0.0)).sum(1).mean()
    return float(entropy / torch.tensor(float(logits.shape[1])).log())


def optimizers_of(runner: Any) -> list[Any]:
    """All of a runner's."""
    wrapper = runner.optim_wrapper
    wrappers = list(wrapper.values()) if isinstance(getattr(wrapper, 'optim_wrappers', None), dict) else [wrapper]
    return [one.optimizer for one in wrappers]


def bytes_of(values: Any) -> int:
    """Of tensors together."""
    return sum(value.numel() * value.element_size() for value in values)
