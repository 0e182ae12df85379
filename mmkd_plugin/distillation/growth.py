"""A student that starts from an older network, and tells more classes apart than that: its new rows, at first alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.optim import Optimizer

from ..facts import TrainingData
from ..files.checkpoint import fingerprint
from ..files.fitting import misfits, told
from ..networks import network_of
from ..options import check_mapping, check_whole
from ..teachers import Frozen, Source
from ..updates import UpdateListener

_EXAMPLE = "start='teacher' or start=dict(teacher='teacher', alone=5)"


class Start:
    """When training starts, the student's weights are a teacher's, which may tell fewer classes apart.

    All weights are copied, running statistics too; a classifier with more classes keeps its own initialisation in the
    new rows. With ``alone`` these train alone for some epochs, the warm-up of Z. Li, D. Hoiem, "Learning without
    Forgetting", ECCV 2016, arXiv 1606.09282. Learnable parts of losses, and peers, are no part of this.

    Args:
        spec: The name of a frozen teacher, or ``dict(teacher=..., alone=epochs)``.
        student: Built.
        sources: By name.

    Raises:
        ValueError: If there is no such teacher, it does not fit the student, or nothing is new that could train alone.
    """

    def __init__(self, spec: Any, student: nn.Module, sources: Mapping[str, Source]) -> None:
        given: Any = {'teacher': spec} if isinstance(spec, str) else check_mapping(spec, 'start', _EXAMPLE)
        #: Name of the teacher.
        self.teacher: str = given.pop('teacher', None)
        #: For so many epochs the new rows train alone.
        self.alone = check_whole(given.pop('alone', 0), 'start: alone')
        frozen = sorted(n for n, source in sources.items() if isinstance(source, Frozen) and not source.changes)
        if given or self.teacher not in frozen:
            raise ValueError(f'start={spec!r} given, expected {_EXAMPLE}, where the teacher is one of {frozen}')
        source = self._source = cast(Frozen, sources[self.teacher])
        who = f'start from {self.teacher}'
        if source.partial:
            raise ValueError(f'{who}: it has allow_missing, and what its file lacks would start from nothing')
        if not source.sees_the_same:
            raise ValueError(
                f'{who}: its data_preprocessor normalises images in another way than that of the student, so its '
                'weights mean something else there: give the student the same'
            )
        try:
            #: By name of a parameter that grows, where its old rows are.
            self.rows: dict[str, Tensor] = network_of(student).rows_of(source.face)
        except ValueError as error:
            raise ValueError(f'{who}: {error}') from error
        self._merged(student)
        if self.alone and not self.rows:
            raise ValueError(
                f'{who}: alone={self.alone} given, and nothing is new: the student tells as many classes apart'
            )
        self._built = fingerprint(_own_state(student))
        self._held = _HeldRows()

    def _merged(self, student: nn.Module) -> dict[str, Any]:
        """The student's state with the teacher's weights in it.

        Raises:
            ValueError: If they do not fit.
        """
        own, old = _own_state(student), self._source.model.state_dict()
        # what grows fits if the old rows have places in it
        like = {name: own[name][rows] for name, rows in self._rows(own).items()}
        if problems := misfits({**own, **like}, old):
            raise ValueError(
                f'start from {self.teacher}: its weights do not fit the student, and only the classifier may grow:\n  '
                + '\n  '.join(told(problems))
            )
        merged = {name: old.get(name, value) for name, value in own.items()}
        for name, rows in self._rows(own).items():
            merged[name] = own[name].index_copy(0, rows, old[name].to(own[name]))
        return merged

    def _rows(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: rows.to(own[name].device) for name, rows in self.rows.items()}

    def copy(self, student: nn.Module, data: TrainingData, initialized: bool) -> None:
        """Copy the teacher's weights into the student; before training.

        Args:
            student: With weights of its own.
            data: The training data; the teacher's classes must be their first ones.
            initialized: Whether the student has just been initialised. In loops that never do that, weights that
                somebody gave it since it was built stay.

        Raises:
            ValueError: If the data lack classes that the teacher knows, or have them in another order.
        """
        data.check_old(self._source.classes, self.teacher)
        if not initialized and fingerprint(_own_state(student)) != self._built:
            return
        student.load_state_dict(self._merged(student), strict=False)
        new = ', '.join(f'{name} ({len(rows)} old rows)' for name, rows in self.rows.items())
        print_log(f'the student starts from {self.teacher}' + (f', with new rows in {new}' if new else ''), 'current')

    def off(self, student: nn.Module) -> list[nn.Parameter]:
        """The parameters that wait while the new rows train alone."""
        return [
            p
            for name, p in student.named_parameters()
            if p.requires_grad and name not in self.rows and not name.startswith('distill.')
        ]

    @contextmanager
    def waiting(self, student: nn.Module, alone: bool) -> Iterator[None]:
        """Around the student's pass: nothing gets a gradient but the new rows, and running statistics stay.

        Args:
            student: Distilled.
            alone: Whether the new rows train alone; else only the end of that is seen to.
        """
        if not alone:
            self._held.release()
            yield
            return
        off = self.off(student) if torch.is_grad_enabled() else []
        if off:
            self._held.hold({student.get_parameter(name): rows for name, rows in self.rows.items()})
        modules = [module for name, module in student.named_modules() if not f'{name}.'.startswith('distill.')]
        before = [(module, [b.clone() for b in module.buffers(recurse=False)]) for module in modules]
        for parameter in off:  # so that nothing below the classifier is differentiated
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in off:
                parameter.requires_grad_(True)
            with torch.no_grad():
                for module, values in before:
                    for buffer, value in zip(module.buffers(recurse=False), values, strict=True):
                        buffer.copy_(value)


class _HeldRows(UpdateListener):
    """Rows that do not change while others of the same parameter learn: neither they, nor what optimizers keep of them.

    Their gradients are zero as soon as they are there, so that clipping and other processes see zeros. Weight decay
    and momentum know nothing of rows, so after the update the rows are put back, and the optimizer's states of them are
    zero, as of what was never updated. (What Adam counts, it counts for whole parameters: when the old rows begin to
    learn, it takes their averages for older than they are. ``PhaseHook(optimizer=True)`` begins anew.)
    """

    def __init__(self) -> None:
        self._rows: dict[nn.Parameter, Tensor] = {}
        self._hooks: list[Any] = []
        self._before: dict[nn.Parameter, Tensor] = {}

    def hold(self, rows: Mapping[nn.Parameter, Tensor]) -> None:
        """Hold rows from now on, by parameter."""
        if self._rows.keys() == rows.keys():
            return
        self.release()
        self._rows = {parameter: index.to(parameter.device) for parameter, index in rows.items()}
        self._hooks = [_zero_in(parameter, index) for parameter, index in self._rows.items()]
        self.listen()

    def release(self) -> None:
        """Let all rows learn."""
        for hook in self._hooks:
            hook.remove()
        self._rows, self._hooks, self._before = {}, [], {}
        self.be_deaf()

    def before_update(self, optimizer: Optimizer) -> None:
        """Remember the rows that this optimizer would change."""
        own = {p for group in optimizer.param_groups for p in group['params'] if p in self._rows}
        self._before = {p: p.detach()[self._rows[p]] for p in own}

    @torch.no_grad()
    def after_update(self, optimizer: Optimizer) -> None:
        """Put them back."""
        for parameter, values in self._before.items():
            rows = self._rows[parameter]
            parameter.index_copy_(0, rows, values)
            for state in optimizer.state.get(parameter, {}).values():
                if isinstance(state, Tensor) and state.shape == parameter.shape:
                    state.index_fill_(0, rows, 0)
        self._before = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> '_HeldRows':
        return _HeldRows()

    def __reduce__(self) -> Any:
        return _HeldRows, ()


def _zero_in(parameter: Any, rows: Tensor) -> Any:
    return parameter.register_hook(lambda gradient: gradient.index_fill(0, rows, 0))


def _own_state(student: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in student.state_dict().items() if not name.startswith('distill.')}
