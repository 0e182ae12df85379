"""Optimizer wrappers that bound the gradient of distillation by that of the task."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor

from ..distillation.part import DistilledPart, distilled_part
from ..distillation.untouched import train_together
from ..options import check_number, check_whole


class _Bounding:
    """What the wrappers add to mmengine's."""

    def __init__(self, *args: Any, bound: float | str = 'sigmoid', begin: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bound = bound if bound == 'sigmoid' else _check_bound(bound)
        self.begin = check_whole(begin, 'begin')
        if begin and bound != 'sigmoid':
            raise ValueError(f"begin={begin} and bound={bound} given, expected begin with bound='sigmoid' alone")
        self._gradients: dict[Tensor, Tensor] = {}  # of distillation, since the last update
        self._unbounded: set[Tensor] = set()
        self._kept: Tensor | None = None

    def update_params(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As mmengine's; ``loss`` is the total that a distilled model gave, untouched.

        Raises:
            TypeError: If no distilled model gave it.
            ValueError: If distillation trains the student without a task loss, or no epochs are counted.
            RuntimeError: If there are activation checkpoints, or nobody says which epoch it is.
        """
        part = self._check(distilled_part(loss))
        if self._kept is not None:  # of the update before: logging has waited for that already
            self.message_hub.update_scalar('train/distill_kept', self._kept)  # type: ignore[attr-defined]
            self._kept = None
        value = part.value()
        if value is not None:
            self._unbounded = set(part.learnable())
            self._accumulate(self._scaled(self.scale_loss(value)))  # type: ignore[attr-defined]
            # its gradient is 1 - 1 = 0 for what is distilled, and reaches all that DDP waits for
            loss = loss - value
        super().update_params(loss, *args, **kwargs)  # type: ignore[misc]

    def step(self, **kwargs: Any) -> None:
        """As mmengine's, with the bounded gradient of distillation added before."""
        self._add_distillation()
        super().step(**kwargs)  # type: ignore[misc]

    def _accumulate(self, value: Tensor) -> None:
        parameters = self._parameters()
        try:
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            if 'use_reentrant' not in str(error):
                raise
            raise RuntimeError(
                f'{type(self).__name__} differentiates the distillation losses by themselves, which torch refuses '
                'through reentrant activation checkpoints: set with_cp=False'
            ) from error
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                before = self._gradients.get(parameter)
                self._gradients[parameter] = gradient if before is None else before + gradient

    def _add_distillation(self) -> None:
        found, self._gradients = self._gradients, {}
        if train_together():
            found = self._averaged(found)
        found = {p: gradient for p, gradient in found.items() if p.grad is not None}
        bounded = {p: gradient for p, gradient in found.items() if p not in self._unbounded}
        if bounded:
            task, own = (torch.stack(torch._foreach_norm(list(of))) for of in (map(_grad, bounded), bounded.values()))
            kept = (self._factor() * task / own.clamp_min(torch.finfo(own.dtype).tiny)).clamp(max=1)
            # not in place: gradients of two parameters may be one tensor
            shortened = torch._foreach_mul(list(bounded.values()), list(kept.unbind()))
            found |= dict(zip(bounded, shortened, strict=True))
            self._kept = kept.mean()
        if found:
            torch._foreach_add_([_grad(p) for p in found], list(found.values()))

    def _factor(self) -> float:
        """Of the task's norm."""
        if not isinstance(self.bound, str):
            return self.bound
        epoch = self.message_hub.runtime_info.get('epoch')  # type: ignore[attr-defined]
        if epoch is None:
            raise RuntimeError(
                f"{type(self).__name__} has bound='sigmoid', and nobody says which epoch it is: train with mmengine's "
                'Runner, or give a number'
            )
        return (1 + math.tanh((epoch - self.begin) / 2)) / 2

    def _averaged(self, gradients: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """The mean over the processes, as DDP takes of what is backpropagated; others may have more of them."""
        parameters = self._parameters()
        flat = torch.cat([gradients.get(p, torch.zeros_like(p)).detach().flatten() for p in parameters])
        dist.all_reduce(flat)
        parts = torch.split(flat / dist.get_world_size(), [p.numel() for p in parameters])
        return {p: part.view_as(p).to(p.dtype) for p, part in zip(parameters, parts, strict=True)}

    def _parameters(self) -> list[Tensor]:
        groups = self.optimizer.param_groups  # type: ignore[attr-defined]
        return [p for group in groups for p in group['params'] if p.requires_grad]

    def _scaled(self, value: Tensor) -> Tensor:
        """As what is backpropagated is."""
        return value

    def _check(self, part: DistilledPart | None) -> DistilledPart:
        name = type(self).__name__
        if part is None:
            raise TypeError(
                f'{name} was given a loss that does not say what of it is distillation: train a model of '
                "type='Distilled' with it (and a train_step that hands on what parse_losses gives), or take "
                "optim_wrapper=dict(type='OptimWrapper')"
            )
        if off := part.without_task():
            raise ValueError(
                f'{name} bounds the gradient of distillation by that of the task, and the task loss of {off} is off, '
                'at some time or always, while distillation trains it: leave it on, or take '
                "optim_wrapper=dict(type='OptimWrapper')"
            )
        if self.bound == 'sigmoid' and not part.counts_epochs():
            raise ValueError(
                f"{name} has bound='sigmoid', which rises with the epochs, and an iteration-based loop counts none: "
                'give a number, such as bound=1.0'
            )
        return part


@OPTIM_WRAPPERS.register_module()
class BoundedOptimWrapper(_Bounding, OptimWrapper):
    """mmengine's ``OptimWrapper``, which keeps the gradient of distillation below that of the task.

    The rule of KD-SVD (arXiv 1807.06819) and MHGD (arXiv 1907.02226), here for any losses: for each parameter,

    ``g = g_task + g_distill * min(1, b * ||g_task|| / ||g_distill||)``, with b = sigmoid(epoch - begin)

    so that distillation never exceeds the task, wherever the weight of a loss puts it. g_distill is the gradient of all
    entries of ``losses`` together, weights and schedules included; where there are peers, theirs are bounded by their
    own task losses. Learnable parts of losses have no task, and are not bounded; a parameter of the student that the
    task does not reach gets nothing of distillation. A stage that trains such parts alone goes on without a task. Weight decay comes afterwards, and so does ``clip_grad``, which
    sees the sum. With several processes norms are those of averaged gradients, with ``accumulative_counts`` those of
    accumulated ones.

    A step costs a second pass back through the student, a copy of its gradients and, with several processes, a second
    exchange. The mean of the factors min(...) is logged as ``distill_kept``. Activation checkpoints (``with_cp=True``)
    do not go with it.

    Args:
        bound: ``sigmoid``, or a constant b > 0.
        begin: The epoch, from 0, in which ``sigmoid`` is 0.5: the first in which distillation trains the student.
        *args: Those of ``OptimWrapper``.
        **kwargs: Those of ``OptimWrapper``: ``optimizer``, ``accumulative_counts``, ``clip_grad``.

    Raises:
        ValueError: If ``bound`` is something else, ``begin`` is no whole number >= 0, or it is given with a constant.
    """


@OPTIM_WRAPPERS.register_module()
class AmpBoundedOptimWrapper(_Bounding, AmpOptimWrapper):
    """:class:`BoundedOptimWrapper` in mixed precision; ``--amp`` makes it of that.

    Both gradients are scaled alike, so the bound is as without. One that is not finite stays so in the sum, and the
    gradient scaler skips the step.

    Args:
        bound: As there.
        begin: As there.
        *args: Those of ``AmpOptimWrapper``.
        **kwargs: Those of ``AmpOptimWrapper``: ``loss_scale``, ``dtype``, and as there.
    """

    def _scaled(self, value: Tensor) -> Tensor:
        scaled: Tensor = self.loss_scaler.scale(value)
        return scaled


_BOUNDED = ('BoundedOptimWrapper', BoundedOptimWrapper, 'AmpBoundedOptimWrapper', AmpBoundedOptimWrapper)


def amp_type(kind: Any) -> str:
    """The type of ``optim_wrapper`` that trains in mixed precision as this one does without."""
    return 'AmpBoundedOptimWrapper' if kind in _BOUNDED else 'AmpOptimWrapper'


def without_bound(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """An ``optim_wrapper`` for a model that is not distilled."""
    if cfg.get('type') not in _BOUNDED:
        return dict(cfg)
    return {**{key: value for key, value in cfg.items() if key not in ('bound', 'begin')}, 'type': 'OptimWrapper'}


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _check_bound(bound: Any) -> float:
    if isinstance(bound, str):
        raise ValueError(f"bound={bound!r} given, expected 'sigmoid' or a finite number > 0")
    return check_number(bound, 'bound', above=True)
