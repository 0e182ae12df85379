"""Saying which phase begins, and what trains in it."""

from collections.abc import Collection

from mmengine.logging import print_log
from torch import nn

from .plan import Plan


class PhaseLog:
    """Writes a line whenever other losses are on than before."""

    def __init__(self) -> None:
        self._told: dict[str | None, tuple[str, ...]] = {}  # in turns, by learner

    def tell(self, model: nn.Module, plan: Plan, off: Collection[nn.Parameter]) -> None:
        """Write it, if this step is the first of a phase.

        Args:
            model: The student, with all that is trained.
            plan: What is on.
            off: Parameters that are not trained.
        """
        if plan.phase == self._told.get(plan.turn):
            return
        self._told[plan.turn] = plan.phase
        names = ['task' if name == 'student' else name for name in plan.phase]
        print_log(
            f'phase of {" + ".join(names)} from epoch {plan.progress.epoch}, iteration '
            f'{plan.progress.iteration}: trains {describe_trained(model, off)}',
            'current',
        )


def describe_trained(model: nn.Module, off: Collection[nn.Parameter]) -> str:
    """What is trained, in as few names as say it.

    Args:
        model: Its parameters with a gradient are trained, but those that are off.
        off: These.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> describe_trained(net, list(net[1].parameters()))
        '0 (2 of 4 parameter tensors)'
    """
    left = {id(parameter) for parameter in off}
    trained = {name: p.requires_grad and id(p) not in left for name, p in model.named_parameters()}

    def names(prefix: str, depth: int) -> list[str]:
        below = {name: on for name, on in trained.items() if name.startswith(prefix)}
        if not any(below.values()):
            return []
        parts = dict.fromkeys(name[len(prefix) :].partition('.')[0] for name in below)
        if prefix and (all(below.values()) or not depth or not any('.' in name[len(prefix) :] for name in below)):
            return [prefix.removesuffix('.')]
        return [found for part in parts for found in names(f'{prefix}{part}.', depth - 1)]

    told = names('', 3)
    return f'{", ".join(told)} ({sum(trained.values())} of {len(trained)} parameter tensors)'
