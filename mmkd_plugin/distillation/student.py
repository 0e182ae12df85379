"""`Distilled` and `distill()`: the student itself, with distillation added to its training."""

import difflib
import functools
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor

from ..options import check_mapping
from ..randomness import keep_random_state
from ..teachers import DISTILLED_KEYS, EXAMPLE, build_source
from .part import DistilledPart
from .step import Distillation


class DistilledMixin:
    """What the class of a distilled student adds to the student's own class."""

    distill: Distillation

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The student's own forward; in ``loss`` mode with the distillation losses added."""
        bound = _signature(type(self)).bind(self, *args, **kwargs)  # type: ignore[arg-type]
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        if arguments.pop('mode') != 'loss':
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        _, images, *others = arguments.values()
        return self.distill.step(
            self,  # type: ignore[arg-type]
            lambda: super(DistilledMixin, self).forward(*args, **kwargs),  # type: ignore[misc]
            images,
            arguments.get('data_samples', others[0] if others else None),
        )

    def parse_losses(self, losses: dict[str, Any]) -> tuple[Any, Any]:
        """The student's own; the total tells what of it is distillation, as :class:`DistilledPart`.

        Where learners take turns, the last one logs what all of them gave.
        """
        for listener in self.distill.listeners:
            listener(losses)
        total, logged = super().parse_losses(losses)  # type: ignore[misc]
        if isinstance(total, Tensor):
            total.distilled_part = DistilledPart(losses, self.distill)  # type: ignore[attr-defined]
        return total, self.distill.planner.turns.join(losses, logged)

    def __reduce__(self) -> Any:
        """Copies and pickles name the student's class; the subclass is made anew."""
        return _new, (type(self).__bases__[1],), self.__dict__

    def init_weights(self) -> None:
        """Initialise the student; load the teachers. mmengine's Runner calls it before training."""
        # A student's init_cfg reaches all modules inside it. Learnable parts of losses are no concern of it: what it
        # drew for them would change the student's own start.
        distillation = self._modules.pop('distill')  # type: ignore[attr-defined]
        try:
            super().init_weights()  # type: ignore[misc]
        finally:
            self._modules['distill'] = distillation  # type: ignore[attr-defined]
        self.distill.prepare(self, next(self.parameters()))  # type: ignore[arg-type, attr-defined]


@functools.cache
def distilled_class(student: type[BaseModel]) -> type[BaseModel]:
    """The subclass of a student's class that trains by distillation."""
    name = f'Distilled{student.__name__}'
    return type(name, (DistilledMixin, student), {'__module__': __name__, '__doc__': student.__doc__})


def _new(student: type[BaseModel]) -> BaseModel:
    cls: Any = distilled_class(student)  # type: ignore[arg-type]
    return cls.__new__(cls)


@functools.cache
def _signature(cls: Any) -> inspect.Signature:
    """Of the student's own forward."""
    return inspect.signature(super(DistilledMixin, cls).forward)


def distill(
    model: BaseModel,
    losses: Mapping[str, Mapping[str, Any] | None],
    teacher: Any = None,
    teachers: Mapping[str, Any] | None = None,
    task_loss: Mapping[str, Any] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    start: Any = None,
) -> BaseModel:
    """Add distillation to a built student, in place.

    The model keeps its class (as a subclass of it), its parameter names and its methods; only
    ``forward(mode='loss')`` returns more losses. Learnable parts of losses appear as
    ``distill.…`` parameters; teachers are no part of the model.

    Args:
        model: The student, any mmengine ``BaseModel``.
        losses: By name: ``dict(type='KDLoss', on='head.fc', ...)``. ``on`` names the modules to
            compare; see docs/configuration.md for all keys. An entry that is None is dropped.
        teacher: A model zoo config name, ``dict(config=..., checkpoint=...)``,
            ``dict(model=..., checkpoint=...)``, a built and trained module, or ``dict(type=...)`` for
            another kind of source: ``Own``, ``Labels``, ``Peer``, ``Route``, ``Average``. None if no loss reads one.
        teachers: Several of those by name, instead of ``teacher``; each loss then says which.
        task_loss: ``dict(loss_weight=1.0, schedule=dict(...))`` for the student's own losses.
        input_shape: (C, H, W) for the dry run that learns shapes; inferred when None.
        start: The name of a frozen teacher whose weights the student starts from; its classifier may have more classes
            than the teacher's, which come first. ``dict(teacher='teacher', alone=5)`` trains only what is new for 5
            epochs. With it, ``losses`` may be empty, which is fine-tuning.

    Returns:
        The same object.

    Raises:
        TypeError: If the model is no ``BaseModel``.
        ValueError: If something does not fit; the message says what, and what to do.
        FileNotFoundError: If a teacher's config does not exist. (Its checkpoint is read when
            training starts, so that testing needs no teacher file.)
    """
    if not isinstance(model, BaseModel):
        raise TypeError(f'{type(model).__name__} given as student, expected a mmengine BaseModel')
    if isinstance(model, DistilledMixin):
        raise ValueError('this student is distilled already; name several losses and teachers once')
    if 'mode' not in inspect.signature(model.forward).parameters:
        raise TypeError(
            f"{type(model).__name__}.forward has no argument `mode`, which mmengine's training calls it with"
        )
    if (teacher is not None and teachers is not None) or not isinstance(teachers or {}, Mapping):
        raise ValueError(f'give either teacher=... or teachers=dict(name=...): {EXAMPLE}')
    specs = check_mapping(teachers or {}, 'teachers', 'dict(a=..., b=...)')
    if teacher is not None:
        specs = {'teacher': teacher}
    if 'student' in specs:
        raise ValueError("teachers names one 'student', which the student itself is called: give it another name")
    with keep_random_state():
        built = {name: build_source(spec, name, model) for name, spec in specs.items()}
        distillation = Distillation(model, built, losses, task_loss, input_shape, start)
    model.__class__ = distilled_class(type(model))  # type: ignore[arg-type]
    model.distill = distillation
    return model


@MODELS.register_module()
def Distilled(  # noqa: N802 (it stands where a config names a class)
    student: str | type[BaseModel] | None = None,
    losses: Mapping[str, Mapping[str, Any] | None] | None = None,
    teacher: Any = None,
    teachers: Mapping[str, Any] | None = None,
    task_loss: Mapping[str, Any] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    start: Any = None,
    **student_arguments: Any,
) -> BaseModel:
    """Build a student as its config says and :func:`distill` it; ``type='Distilled'`` in configs.

    Args:
        student: What the model's ``type`` was.
        losses: See :func:`distill`, as for the other named arguments.
        teacher: One teacher.
        teachers: Several by name.
        task_loss: Weight and schedule of the student's own losses.
        input_shape: (C, H, W) for the dry run.
        start: The teacher whose weights the student starts from.
        **student_arguments: The student's own model keys.

    Returns:
        The student, whose class is now a subclass of its own.

    Raises:
        ValueError: If a key is missing or misspelt, and as :func:`distill`.
    """
    given = {'student': student, 'losses': {} if losses is None and start is not None else losses}
    for key in [key for key, value in given.items() if value is None]:
        near = difflib.get_close_matches(key, student_arguments, n=1)
        raise ValueError(
            f"model=dict(type='Distilled') has no {key}"
            + (f" (is '{near[0]}' meant?)" if near else '')
            + ". Expected dict(type='Distilled', student='ImageClassifier', teacher=..., losses=dict(loss_kd=...)), "
            'where student is what `type` was, and beside these the keys of the plain model'
        )
    if not isinstance(student, (str, type)):
        raise ValueError(
            f'student={student!r} given, expected what the `type` of the plain model was, such as '
            "'ImageClassifier'; its other keys (backbone, head ...) stand beside it in `model`"
        )
    for key in student_arguments:
        if near := difflib.get_close_matches(key, DISTILLED_KEYS, n=1, cutoff=0.8):
            raise ValueError(f"model has the unknown key '{key}': is '{near[0]}' meant?")
    if isinstance(student, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            if registry.get(student) is None:
                near = difflib.get_close_matches(student, registry.module_dict, n=2)
                raise ValueError(
                    f'student={student!r} given, which is not registered'
                    + (f' (did you mean {" or ".join(near)}?)' if near else '')
                    + f' in the scope {registry.scope!r}: expected what the `type` of the plain model was; check '
                    'default_scope and custom_imports'
                )
    model = MODELS.build({'type': student, **student_arguments})
    return distill(model, losses or {}, teacher, teachers, task_loss, input_shape, start)
