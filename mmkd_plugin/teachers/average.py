"""The student's own moving average as its teacher."""

from typing import Any, ClassVar
from weakref import ref

import torch
from mmengine.dist import all_reduce_params
from mmengine.model import MomentumAnnealingEMA
from torch import Tensor, nn
from torch.optim import Optimizer

from ..facts import Progress
from ..options import check_bool, check_number, check_whole
from ..updates import UpdateListener
from .network_source import NetworkSource
from .source import SOURCES

_PATIENCE = 1000  # steps; more than anybody accumulates, or a gradient scaler skips


class StudentAverage(MomentumAnnealingEMA):
    """mmengine's average of a student's weights, in evaluation mode whatever the student is in."""

    def train(self, mode: bool = True) -> 'StudentAverage':
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def begin(self, student: nn.Module) -> None:
        """Start anew from the student's weights and buffers."""
        own = student.state_dict()
        self.module.load_state_dict({key: own[key] for key in self.module.state_dict()})
        self.steps.zero_()

    def update_parameters(self, model: nn.Module) -> None:
        """Take over a part of the student; where processes train together, of the mean of their running statistics."""
        if self.update_buffers:  # what it remembers of the state dict is left behind when the model moves
            self.avg_parameters = self.module.state_dict()
        self._part = max(self.momentum, self.gamma / (self.gamma + int(self.steps)))
        super().update_parameters(model)
        kept = self.module.state_dict(keep_vars=True).values()
        all_reduce_params([b for b in kept if not isinstance(b, nn.Parameter) and b.is_floating_point()], op='mean')

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """As mmengine's, which reads ``steps`` anew for each parameter."""
        averaged_param.lerp_(source_param, self._part)


@SOURCES.register_module()
class Average(NetworkSource, UpdateListener):
    """The exponential moving average of the student's own weights: the mean teacher.

    A. Tarvainen, H. Valpola, "Mean teachers are better role models: Weight-averaged consistency targets improve
    semi-supervised deep learning results", NeurIPS 2017, arXiv 1703.01780. Here for labelled data, and the consistency
    cost is any loss. After each update of the student, ``average += part * (student - average)`` with ``part =
    max(momentum, gamma / (gamma + updates))``: the first ones count more, as in the authors' code. Deviations: both see
    the same augmented images, where the paper draws noise for each, and the average is in evaluation mode, where the
    authors' code normalises by the batch.

    ``teacher=dict(type='Average', momentum=0.001)``. It is a copy of the student, starts from the weights that training
    starts from, and is updated by steps of an optimizer that has the student's parameters: once for all batches whose
    gradients are accumulated, and not where a gradient scaler skips a step. Checkpoints keep it as
    ``distill.kept.<name>``; the slim student has none of it. A copy of the model has an average of its own.

    Args:
        name: Its key in ``teachers``.
        student: Plain yet.
        momentum: The part of the student in the long run, in (0, 1); ``1 - alpha`` in the paper, which has 0.01 and
            then 0.001.
        gamma: Of the first updates, >= 1; 1 is the authors'.
        update_buffers: Average running statistics as the weights; by default they are the student's, as mmengine's.

    Raises:
        ValueError: If a number is out of range.
    """

    keys: ClassVar[tuple[str, ...]] = ('momentum', 'gamma', 'update_buffers')
    kept: StudentAverage

    def __init__(
        self,
        name: str,
        student: nn.Module,
        momentum: float = 0.001,
        gamma: int = 1,
        update_buffers: bool = False,
    ) -> None:
        check_number(momentum, f'{name}: momentum', 0, 1, above=True)
        if momentum == 1:
            raise ValueError(f'{name}: momentum=1 given, expected less: the average would be the student itself')
        check_whole(gamma, f'{name}: gamma', 1)
        check_bool(update_buffers, f'{name}: update_buffers')
        self.kept = StudentAverage(student, momentum, gamma, update_buffers=update_buffers).train()
        super().__init__(name, self.kept.module, student, sees_the_same=True)
        self._begun = False
        self._student: Any = None
        self._waited = 0

    @classmethod
    def from_spec(cls, spec: Any, name: str, student: nn.Module) -> 'Average':
        """Of the student; see :class:`Source`."""
        return cls(name, student, **spec)

    def get_ready(self, like: Tensor, student: nn.Module | None = None, progress: Progress | None = None) -> None:
        """In the first step, start from the student's weights, or go on from a checkpoint; and listen to optimizers."""
        if student is None or progress is None:
            return
        if not self._begun:
            # without a run that says how far it is, by what was loaded
            fresh = progress.iteration == 0 if progress.epochs is not None else int(self.kept.steps) == 0
            if fresh:
                self.kept.begin(student)
            self._begun = True
        if self._student is None:
            self.listen()
        self._student = ref(student)
        self._waited += torch.is_grad_enabled()
        if self._waited > _PATIENCE:
            raise RuntimeError(
                f'{self.name} (Average): {_PATIENCE} steps, and no torch.optim.Optimizer with parameters of the '
                'student has made one, so that the average stays what it was: torch does not know what updates it'
            )

    def after_update(self, optimizer: Optimizer) -> None:
        """Take over what an optimizer did, if it did it to the student."""
        student = self._student() if self._student is not None else None
        if student is None:
            return
        own = {id(p) for name, p in student.named_parameters() if not name.startswith('distill.')}
        if any(id(p) in own for group in optimizer.param_groups for p in group['params']):
            self._waited = 0
            with torch.no_grad():
                self.kept.update_parameters(student)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_student': None}  # a copy belongs to another student
