"""Making a frozen teacher cheaper without changing what it computes."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class ConvNormPairs:
    """Watches a forward pass for convolutions whose output goes straight into a batch norm.

    Who feeds whom is read off the tensors of a real pass, not off the order of attributes, so
    that pre-activation networks and shared layers are seen as they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._convs: dict[int, nn.Module] = {}
        self._calls: dict[nn.Module, int] = {}
        self._pairs: dict[nn.Module, nn.Module | None] = {}
        self._alive: list[Tensor] = []  # keeps ids of outputs unique during the pass

    def __enter__(self) -> 'ConvNormPairs':
        self._handles = [
            module.register_forward_hook(self._record)
            for module in self._model.modules()
            if isinstance(module, _CONVS + _NORMS)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._alive.clear()

    def _record(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._calls[module] = self._calls.get(module, 0) + 1
        if isinstance(module, _CONVS):
            self._convs[id(output)] = module
            self._alive.append(output)
        else:
            self._pairs[module] = self._convs.get(id(args[0]))

    def found(self) -> list[tuple[nn.Module, nn.Module]]:
        """(convolution, norm) pairs that can be folded.

        Each module ran exactly once, the norm has running statistics, and the convolution's
        weight is a plain parameter (not computed anew in each pass, as by weight_norm).
        """
        return [
            (conv, norm)
            for norm, conv in self._pairs.items()
            if conv is not None
            and self._calls[norm] == 1
            and self._calls[conv] == 1
            and norm.running_mean is not None
            and isinstance(conv._parameters.get('weight'), nn.Parameter)
            and not conv._forward_pre_hooks
        ]


@torch.no_grad()
def fold(model: nn.Module, pairs: list[tuple[nn.Module, nn.Module]]) -> None:
    """Put each batch norm's frozen affine map into the convolution before it, in place.

    The norm becomes an identity, so a tap on it still reads the normalised values; a tap on the
    convolution itself would read something else, which is why callers leave such pairs out.

    Args:
        model: In evaluation mode.
        pairs: What :meth:`ConvNormPairs.found` gave.
    """
    norms = {norm for _, norm in pairs}
    for conv, norm in pairs:
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var,  # type: ignore[arg-type]
            norm.eps, norm.weight, norm.bias,  # type: ignore[arg-type]
        )  # fmt: skip
    for module in model.modules():
        for name, child in module.named_children():
            if child in norms:
                setattr(module, name, nn.Identity())


def use_channels_last(model: nn.Module) -> None:
    """Keep weights, and thereby activations, channel by channel in memory, which convolutions are faster on.

    mmcv's compiled operations (RoIAlign, deformable convolution ...) read memory as if it were
    contiguous, and would refuse or silently compute something else: their weights stay, and their
    inputs are made contiguous.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules():
        if any(cls.__module__.startswith('mmcv.ops.') for cls in type(module).__mro__):
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            module.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(arg.contiguous() if isinstance(arg, Tensor) else arg for arg in args)
