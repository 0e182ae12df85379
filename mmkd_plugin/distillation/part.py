"""What of a step's total is distillation: for optimizer wrappers, which get nothing but the total."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .step import Distillation


class DistilledPart:
    """What a distilled model tells of the total of its losses, as the attribute ``distilled_part`` of that tensor.

    Only names are kept; whoever asks computes.

    Args:
        losses: What the step gave, by name.
        distillation: The model's ``distill`` child.
    """

    def __init__(self, losses: Mapping[str, Any], distillation: 'Distillation') -> None:
        self._losses = losses
        self._distillation = distillation

    def value(self) -> Tensor | None:
        """The sum of the distillation losses, as it stands in the total; those of peers too. None where all are off."""
        values = [self._losses[term.name].mean() for term in self._distillation.terms if term.name in self._losses]
        return torch.stack(values).sum() if values else None

    def learnable(self) -> list[nn.Parameter]:
        """The learnable parts of losses, which the task has no gradient for."""
        return list(self._distillation.losses.parameters())

    def without_task(self) -> list[str]:
        """The learners that distillation trains while their own losses are off, always or at some time."""
        return self._distillation.planner.without_task

    def counts_epochs(self) -> bool:
        """Whether mmengine does; to an iteration-based loop the run is one epoch."""
        return not self._distillation.planner.iteration_based


def distilled_part(total: Tensor) -> DistilledPart | None:
    """What the model told of this total; None if it is not distilled, or if something was computed of the total."""
    return getattr(total, 'distilled_part', None)
