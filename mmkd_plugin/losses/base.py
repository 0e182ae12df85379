"""What every distillation loss shares: float32 arithmetic, a weight, declared needs."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..options import check_number

F = TypeVar('F', bound=Callable[..., Any])

_LOW_PRECISION = (torch.float16, torch.bfloat16)


def full_precision(function: F) -> F:
    """Run a loss function outside autocast, with half-precision tensors raised to float32.

    float32 and float64 tensors pass as they are, so that float64 gradient checks stay float64.

    Example:
        >>> @full_precision
        ... def mean(x):
        ...     return x.mean()
        >>> mean(torch.ones(2, dtype=torch.float16)).dtype
        torch.float32
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        args = tuple(_raise_precision(a) for a in args)
        kwargs = {k: _raise_precision(v) for k, v in kwargs.items()}
        device = next(_device_types([*args, *kwargs.values()]), 'cpu')
        if not torch.is_autocast_enabled(device):  # entering the context takes longer than some kernels
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


def _raise_precision(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in _LOW_PRECISION:
        return value.float()
    if isinstance(value, (list, tuple)):
        raised = [_raise_precision(v) for v in value]
        return raised if isinstance(value, list) else tuple(raised)
    return value


def _device_types(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Tensor):
            yield value.device.type
        elif isinstance(value, (list, tuple)):
            yield from _device_types(value)


class DistillLoss(nn.Module):
    """Base of all distillation losses: tensors in, one weighted scalar out.

    A subclass implements ``forward(student, teacher, **needs)``. ``student`` and ``teacher`` are
    the two tapped tensors, or two lists of tensors where :attr:`relates_layers` is true. A loss that
    reads other :attr:`sides` takes these instead.

    Learnable parts (a regressor, an attention module ...) belong to the loss. They are made in
    :meth:`build_connectors`, which is called once, before the optimizer exists, with the shapes
    that a dry run of all networks gave.

    Args:
        loss_weight: Factor on the value (dimensionless).

    Raises:
        ValueError: If ``loss_weight`` is negative or not finite.
    """

    #: Whether the taps must be class scores, which the parts of a known model tell from other values.
    compares_logits: ClassVar[bool] = False
    #: What ``forward`` takes first: ``student``, and ``teacher`` (one source) or ``teachers`` (any number of them, a
    #: dictionary by name). ``('student',)`` is a loss without a teacher, ``('teacher',)`` one that trains its learnable
    #: parts on a teacher alone.
    sides: ClassVar[tuple[str, ...]] = ('student', 'teacher')
    #: Names of what ``forward`` wants besides the taps, passed as keyword arguments: ``labels`` (N,) int64,
    #: ``sample_idx`` (N,) int64, ``epoch`` ... (``mmkd_plugin.facts.NEEDS`` has all, and takes more).
    needs: ClassVar[tuple[str, ...]] = ()
    #: False: a list of taps makes one loss per layer, summed, and all sides have lists of the same length. True: the
    #: loss gets the whole lists, of any length.
    relates_layers: ClassVar[bool] = False
    #: Whether the rows of its taps may be RoIs of a detector; False: they are images, and taps of RoIs are refused.
    takes_rois: ClassVar[bool] = True
    #: What it compares of dense heads, all levels of each in order: ``('scores',)``, ``('scores', 'distributions')``,
    #: ``('scores', 'boxes')``. Both heads must then score the same places, and :attr:`grid` is what is known of them.
    dense_outputs: tuple[str, ...] = ()
    #: Whether what the learner has inside its dense head goes through the rest of its teacher's: it then has ``cut``
    #: and ``branches``, after how many convolutions of which branches.
    crosses_heads: ClassVar[bool] = False
    #: ``mmkd_plugin.networks.DenseGrid`` of the learner's dense head; None where nobody told, as where it stands alone.
    grid: Any = None
    #: Other entries of ``losses`` whose learnable parts it uses when these have been trained: by the argument that
    #: names one, the class that it must be. ``used(argument)`` is that loss.
    uses: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """See that the class says what it means: a word in brackets is no tuple.

        Raises:
            TypeError: If ``sides`` or ``needs`` are something else.
        """
        super().__init_subclass__(**kwargs)
        for name, known in (('sides', ('student', 'teacher', 'teachers')), ('needs', None)):
            given = getattr(cls, name)
            words = isinstance(given, tuple) and all(isinstance(word, str) for word in given)
            if not words or (known and (not given or not set(given) <= set(known))):
                some = f', some of {", ".join(known)}' if known else ''
                raise TypeError(f"{cls.__name__}: {name}={given!r} given, expected a tuple of words{some}: ('labels',)")

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = check_number(loss_weight, f'{type(self).__name__}: loss_weight')
        self._used: dict[str, DistillLoss] = {}  # in a dictionary, so that they are no modules of this one

    def take(self, argument: str, other: 'DistillLoss') -> None:
        """Get to know a loss that this one uses; before :meth:`build_connectors`."""
        self._used[argument] = other

    def used(self, argument: str) -> Any:
        """The loss that an argument names, see :attr:`uses`. What it computes is to be taken as constant.

        Raises:
            RuntimeError: If nobody told, as where the loss stands alone.
        """
        if argument not in self._used:
            raise RuntimeError(
                f'{type(self).__name__} uses a {self.uses[argument]}: call take({argument!r}, loss) first'
            )
        return self._used[argument]

    def build_connectors(self, *sides: Any, **named: Any) -> None:
        """Make learnable parts from the shapes of the taps; nothing by default.

        Args:
            *sides: As ``forward`` gets values, ``(student, teacher)`` for most: the shape of a tap, batch first (a list
                of them where :attr:`relates_layers` is true). A shape knows the ``tap``, the ``model`` and the
                ``module`` that it comes from.
            **named: Nothing; a subclass names its own.
        """

    def reserve(self, data: Any) -> None:
        """Make room for what is kept of each training sample; nothing by default.

        Called as soon as the training data are told, before anybody copies the model, as EMA does, and before
        :meth:`prepare`. Buffers may be resized in place.

        Args:
            data: :class:`mmkd_plugin.facts.TrainingData`.
        """

    def prepare(self, facts: Any) -> str | None:
        """Take over what is known before training; nothing by default.

        Called once, when weights are loaded and before batch norms are folded; a resumed run loads the loss's own
        parameters and buffers after it. Without gradient. What is kept goes into parameters or buffers that
        :meth:`build_connectors` made, so that optimizers, EMA and checkpoints know them.

        Args:
            facts: :class:`mmkd_plugin.facts.Facts`: the networks and their tapped modules by side, how many training
                samples there are, and their labels.

        Returns:
            What the log should say of it.
        """
        return None

    def top_k_temperature(self) -> float | None:
        """The temperature at whose softmax alone it reads the teacher's class scores; None: it reads more of them.

        Where it is told, a knowledge store that keeps the largest scores only may teach it, see
        :class:`mmkd_plugin.store.TopK`.
        """
        return None

    def check_resumed(self, state: Mapping[str, Tensor]) -> None:
        """See that a run can go on with what a checkpoint holds of this loss, before it is loaded; nothing by default.

        Args:
            state: By name, its parameters and buffers.

        Raises:
            ValueError: If it cannot.
        """

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'loss_weight={self.loss_weight:g}'


def check_temperature(temperature: float) -> float:
    """The temperature as a float.

    Raises:
        ValueError: If it is not a finite positive number.
    """
    return check_number(temperature, 'temperature', above=True)


def check_logits(student: Tensor, teacher: Tensor) -> None:
    """Check that two logit tensors can be compared class by class.

    Raises:
        ValueError: If they are not both (N, C) with the same N and C.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f'student logits {tuple(student.shape)} and teacher logits {tuple(teacher.shape)} given, '
            'expected two tensors of the same shape (N, C). Logits can be compared only over the '
            'same classes in the same order: use a teacher trained on the same class set, or a '
            'feature loss. If these are no logits, tap the classifier layer (such as head.fc)'
        )
