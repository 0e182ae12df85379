"""The weights of a layer, as one vector, and where a run keeps the path that they took."""

from pathlib import Path

import torch
from torch import Tensor, nn

from .taps import find_module

#: Under which key checkpoints hold the path of layers.
PATH_LENGTH = 'path_length'


def explained_in(work_dir: str | Path) -> Path:
    """Where a run keeps the checkpoints that `tools/explain.py` looks at."""
    return Path(work_dir) / 'explain'


def weights_at(model: nn.Module, path: str, side: str = 'student') -> list[nn.Parameter]:
    """The weights of a module and of all in it: of convolutions and linear layers, without biases and norms.

    Args:
        model: Where to look.
        path: Of the module, such as ``backbone.layer4`` or ``head.fc``.
        side: What the model is called in the error.

    Raises:
        ValueError: If there is no such module, or if it has no weights.
    """
    module = find_module(model, path, side)
    found = [p for name, p in module.named_parameters() if p.ndim > 1 and not name.startswith('distill.')]
    if not found:
        raise ValueError(
            f"'{path}' of the {side} ({type(module).__name__}) has no weights of a convolution or linear layer: name "
            "the layer that computes what is read, such as 'backbone.layer4' or 'head.fc'; tools/list_modules.py "
            'CONFIG lists all modules'
        )
    return found


def flat(weights: list[nn.Parameter]) -> Tensor:
    """Weights one after the other, (n,), without gradient."""
    return torch.cat([p.detach().reshape(-1) for p in weights])
