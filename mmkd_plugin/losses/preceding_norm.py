"""Which batch norm a value before a ReLU comes from, by how the network is put together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

_RELUS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU)
# a batch norm of the branch that runs beside a block's main path
_BESIDE = ('short', 'down', 'skip', 'ident')


def find_norm(model: nn.Module, tap: Any) -> str:
    """The path of the batch norm that a tapped value comes from.

    That is the tapped module itself, or what stands before a tapped ``...relu:input``: in a sequence its predecessor,
    in a block the last batch norm of the main path, also where the shortcut is added in between.

    Args:
        model: The network.
        tap: Where it is read, a :class:`mmkd_plugin.networks.Tap`.

    Raises:
        ValueError: If that is not plain from the network's structure; the message says what is.
    """
    if found := _before(model, tap):
        return found
    advice = _before_last_relu(model, tap)
    raise ValueError(
        f"'{tap}' of {type(model).__name__} given, expected a place before a ReLU and behind a batch norm: "
        + (f"write '{advice}', or name" if advice else "such as 'backbone.layer1.1.relu:input'; or name")
        + " the batch norm of each tap in norms=['path', ...]"
    )


def named_norm(model: nn.Module, path: str) -> BatchNorm:
    """The batch norm at a path.

    Raises:
        ValueError: If there is something else, or nothing.
    """
    modules = dict(model.named_modules())
    norm = modules.get(path)
    if not isinstance(norm, BatchNorm):
        known = [name for name, module in modules.items() if isinstance(module, BatchNorm)]
        raise ValueError(
            f'{path!r} given, which is {"no module" if norm is None else f"a {type(norm).__name__}"} of '
            f'{type(model).__name__}, expected the path of a batch norm'
            + (f', such as {known[-1]!r}' if known else ', and there is none')
        )
    return norm


def _before(model: nn.Module, tap: Any) -> str | None:
    module = model.get_submodule(tap.path)
    if tap.index or tap.call is not None:  # of a module that runs several times, the last call is the block's end
        return None
    if not tap.of_input:
        return tap.path if isinstance(module, BatchNorm) else None
    if not isinstance(module, _RELUS):
        return None
    path = tap.path.rpartition('.')[0]
    parent = model.get_submodule(path)
    children = list(parent.named_children())
    number = next((i for i, (_, child) in enumerate(children) if child is module), 0)
    order = getattr(parent, 'order', ())  # of mmcv's ConvModule
    if number == 0 or isinstance(parent, (nn.ModuleList, nn.ModuleDict)) or list(order)[:1] == ['act']:
        return None
    last = all(not isinstance(child, _RELUS) for _, child in children[number + 1 :])
    if isinstance(parent, nn.Sequential) or not last:
        found = children[number - 1 : number]
    elif not any(isinstance(child, BatchNorm) for _, child in children[:number]):
        found = []  # a convolution, its ReLU, and the batch norm after that
    else:  # networks that use one ReLU several times may register it before the block's last batch norm
        found = [item for item in children if not any(word in item[0].lower() for word in _BESIDE)]
    norms: Sequence[str] = [own for own, child in found if isinstance(child, BatchNorm)]
    return f'{path}.{norms[-1]}'.lstrip('.') if norms else None


def _before_last_relu(model: nn.Module, tap: Any) -> str | None:
    """Where to read the same before its ReLU."""
    if tap.of_input:
        return None
    for name, module in reversed(list(model.get_submodule(tap.path).named_modules())):
        path = f'{tap.path}.{name}'.rstrip('.')
        before = replace(tap, path=path, of_input=True, index=(), call=None)
        if isinstance(module, _RELUS) and _before(model, before):
            return str(before)
    return None
