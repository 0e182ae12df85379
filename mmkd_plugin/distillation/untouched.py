"""What is off is untouched: no update, no weight decay, no momentum, no running statistics.

A loss is off outside its schedule. What no active loss reaches is not stepped: autograd gives it no gradient, and
optimizers leave parameters without one alone. Where several processes train together, torch's reducer wants a gradient
for every parameter, so there these get zeros, which are taken away again before the update.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..updates import UpdateListener


@dataclass
class Off:
    """What is off in one phase.

    Args:
        parameters: Without a gradient.
        modules: Whose buffers (running statistics) stay.
    """

    parameters: list[nn.Parameter] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)


@contextmanager
def teaching_only(network: nn.Module) -> Iterator[None]:
    """Around a pass of a learner that learns nothing from it: no gradient, and its buffers are put back.

    Args:
        network: What it has as ``distill`` is left to itself.
    """
    buffers = [buffer for name, buffer in network.named_buffers() if not name.startswith('distill.')]
    before = [buffer.clone() for buffer in buffers]
    try:
        with torch.no_grad():
            yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


class Phases(UpdateListener):
    """Finds what is off in each phase, and keeps it as it is."""

    def __init__(self) -> None:
        self._known: dict[Any, Off] = {}
        self._pending: dict[int, nn.Parameter] | None = None

    @contextmanager
    def watching(self, student: nn.Module, phase: Any) -> Iterator[dict[nn.Module, list[Any]]]:
        """Around a pass of the student whose own losses are off: buffers of what is off are put back in :meth:`find`.

        Args:
            student: Its modules that have buffers are watched.
            phase: What is active, hashable.

        Yields:
            By module, the graph's nodes that its outputs come from. Empty once the phase is known.
        """
        nodes: dict[nn.Module, list[Any]] = {}
        known = self._known.get(phase)
        modules = _modules_with_buffers(student) if known is None else known.modules
        self._before = {m: [b.clone() for b in m.buffers(recurse=False)] for m in modules}
        handles = []
        if known is None:
            handles = [module.register_forward_hook(_node_keeper(nodes)) for module in modules]
        try:
            yield nodes
        finally:
            for handle in handles:
                handle.remove()

    def find(
        self, student: nn.Module, phase: Any, values: list[Tensor], nodes: dict[nn.Module, list[Any]], keep: bool = True
    ) -> Off:
        """What is off while the student's own losses are, read off the autograd graph.

        In each step anew, because a network may leave parts out now and then; where processes train together once for
        each phase, because all must leave out the same, and torch's reducer wants a graph that stays the same anyway.

        Args:
            student: With all that is trained, losses with learnable parts too.
            phase: What is active.
            values: Of the active losses.
            nodes: What :meth:`watching` gave.
            keep: Whether this step shows the whole phase; False if a detector had no RoIs for an active loss.

        Raises:
            RuntimeError: If an activation checkpoint hides a part of the graph.
        """
        off = self._known.get(phase)
        if off is None:
            graph = _graph(values)
            reached = {id(node.variable) for node in graph if hasattr(node, 'variable')}
            off = Off(
                [p for p in student.parameters() if p.requires_grad and id(p) not in reached],
                [module for module, own in nodes.items() if own and graph.isdisjoint(own)],
            )
            if keep and train_together():
                self._known[phase] = off
        with torch.no_grad():
            for module in off.modules:
                for buffer, before in zip(module.buffers(recurse=False), self._before[module], strict=True):
                    buffer.copy_(before)
        self._before = {}
        return off

    def leave_out(self, off: Iterable[nn.Parameter], unused: Iterable[nn.Parameter] = ()) -> Tensor | None:
        """See to it that the coming update does not touch what is off; with gradient accumulation, in all of its steps.

        Args:
            off: By schedule, and so in every process.
            unused: Not off, but without a gradient in this step of this process.

        Returns:
            Where processes train together: zero that depends on all these, to be added to a loss. Else None.
        """
        left = {id(p): p for p in off}
        before = left if self._pending is None else self._pending  # empty if a step before used everything
        self._pending = {key: p for key, p in left.items() if key in before}
        self.listen()
        without = [*left.values(), *unused]
        if not without or not train_together():
            return None
        return torch.stack([p.flatten()[:1].float().sum() for p in without]).sum() * 0.0

    def before_update(self, optimizer: Optimizer) -> None:
        """Take the gradients of what is off away, if the optimizer has some of it."""
        pending = self._pending or {}
        if pending and not any(id(p) in pending for group in optimizer.param_groups for p in group['params']):
            return  # somebody else's
        for parameter in pending.values():
            parameter.grad = None
        self._pending = None
        self.be_deaf()

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Phases':
        return Phases()

    def __reduce__(self) -> Any:
        return Phases, ()


def train_together() -> bool:
    """Whether several processes train one model."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _modules_with_buffers(student: nn.Module) -> list[nn.Module]:
    return [module for module in student.modules() if any(True for _ in module.buffers(recurse=False))]


def _node_keeper(nodes: dict[nn.Module, list[Any]]) -> Any:
    def keep(module: nn.Module, args: Any, output: Any) -> None:
        outputs = output if isinstance(output, (tuple, list)) else [output]
        found = [o.grad_fn for o in outputs if isinstance(o, Tensor) and o.grad_fn is not None]
        nodes.setdefault(module, []).extend(found)

    return keep


def _graph(values: Iterable[Tensor]) -> set[Any]:
    """Every node that gradients of these values pass through."""
    seen: set[Any] = set()
    stack = [value.grad_fn for value in values]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        if type(node).__name__ == 'CheckpointFunctionBackward':
            raise RuntimeError(
                "a learner's own losses are off in this phase, and what the others train is hidden inside an "
                'activation checkpoint: set with_cp=False'
            )
        seen.add(node)
        stack.extend(following for following, _ in node.next_functions)
    return seen
