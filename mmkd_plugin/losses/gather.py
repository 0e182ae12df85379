"""Relations between the samples of a batch, over the batches of all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..options import check_bool
from .base import DistillLoss


class SampleRelationLoss(DistillLoss):
    """Base of losses that relate samples with each other.

    Their value depends on which samples are in the batch together, so that the same batch size over more processes is
    another loss: each process relates the samples of its own batch, unless ``gather=True``.

    Args:
        gather: Relate the samples of all processes: value and gradients are those of one process on the joined batch.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If ``gather`` is no boolean or the weight is negative.
    """

    def __init__(self, gather: bool = False, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.gather = check_bool(gather, 'gather')

    def joined(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The values with the rows of all processes, if ``gather``; else as they are.

        Where no gradient is computed nothing is sent, and they stay as they are: in the dry run, whose tensors may lie
        where the group cannot send from, and in evaluation, where processes may have other numbers of batches and would
        wait for each other.
        """
        return gather_rows(*values) if self.gather and torch.is_grad_enabled() else values

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'gather={self.gather}, {super().extra_repr()}'


def gather_rows(*values: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes, in the order of their ranks; without several processes the values themselves.

    Every process computes the same loss of the same rows, and has gradients of its own rows alone. These are
    multiplied by the number of processes, because DDP takes the mean of the processes' gradients, so that what
    parameters get is the gradient of one process on the joined batch. Nothing is sent in the backward pass. Processes
    may have different numbers of rows, but the same number in all values that are given together.

    Args:
        *values: (N, ...) each, of equal N; all else must be equal on all processes.

    Returns:
        (sum of N over the processes, ...) each.

    Raises:
        ValueError: If the values differ in N.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    if len({len(value) for value in values}) > 1:
        raise ValueError(
            f'{", ".join(str(tuple(value.shape)) for value in values)} given, expected values of the same samples'
        )
    count = torch.tensor([len(values[0])], device=values[0].device)
    counts = [torch.zeros_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    rows = torch.cat(counts).tolist()
    return tuple(_Joined.apply(value, rows) for value in values)  # type: ignore[no-untyped-call]


def mean_of_processes(value: Tensor) -> Tensor:
    """The mean of a number over all processes, without gradient; nothing is sent where no gradient is computed.

    Args:
        value: Any shape, the same on all processes.

    Returns:
        The same shape.
    """
    value = value.detach()
    if not (torch.is_grad_enabled() and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, rows: list[int]) -> Tensor:
        ctx.rows = rows
        padded = value.new_zeros(max(rows), *value.shape[1:])  # what is gathered has one shape
        padded[: len(value)] = value
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        joined = value.new_empty(sum(rows), *value.shape[1:])  # autocast has no torch.cat of float64
        for own, part in zip(torch.split(joined, rows), parts, strict=True):
            own.copy_(part[: len(own)])
        return joined

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        start = sum(ctx.rows[: dist.get_rank()])
        own = gradient[start : start + ctx.rows[dist.get_rank()]]
        return own * len(ctx.rows), None
