"""What every distillation loss keeps to, whatever it computes.

Every loss that `mmkd_plugin.losses` exports is looked up in `SETTINGS`; one that is not there
fails the collection of this file, so that no loss escapes these tests.
"""

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import Tensor

from mmkd_plugin import losses
from mmkd_plugin.losses import DistillLoss

N, CLASSES = 4, 5

MakeTaps = Callable[[torch.Generator], list[Tensor]]


def random(*shapes: Sequence[int]) -> MakeTaps:
    """Makes normal taps of the given shapes."""
    return lambda generator: [3 * torch.randn(*shape, generator=generator) for shape in shapes]


class Setting(NamedTuple):
    """How to try a loss.

    Attributes:
        arguments: For the constructor, all of them except ``loss_weight``; not the defaults.
        student: Makes the student's taps: one, or several for a loss that relates layers.
        teacher: The same for the teacher.
        needs: What ``forward`` gets besides.
        zero_at_equality: Equal taps of student and teacher give 0.
        batch_mean: The value is a mean over samples, so that a batch given twice has the same.
    """

    arguments: dict[str, Any]
    student: MakeTaps
    teacher: MakeTaps
    needs: dict[str, Any]
    zero_at_equality: bool = True
    batch_mean: bool = True


LOGITS = random((N, CLASSES))
LABELS = torch.tensor([0, 3, 4, 3])
STUDENT_MAP, TEACHER_MAP = random((N, 3, 8, 8)), random((N, 5, 4, 4))
STUDENT_MAPS = random((N, 3, 8, 8), (N, 4, 4, 4), (N, 6, 2, 2))
TEACHER_MAPS = random((N, 5, 8, 8), (N, 6, 4, 4), (N, 7, 2, 2))

SETTINGS = {
    'KDLoss': Setting({'temperature': 2.0}, LOGITS, LOGITS, {}),
    'DKDLoss': Setting({'alpha': 0.5, 'beta': 2.0, 'temperature': 3.0}, LOGITS, LOGITS, {'labels': LABELS}),
    'FitNetLoss': Setting({'regressor': 'conv_bn'}, STUDENT_MAP, TEACHER_MAP, {}, zero_at_equality=False),
    'ATLoss': Setting({'p': 3, 'squared': False}, STUDENT_MAP, TEACHER_MAP, {}),
    'NSTLoss': Setting({'kernel': 'gaussian', 'variance': 'batch'}, STUDENT_MAP, TEACHER_MAP, {}),
    'ReviewKDLoss': Setting({'mid_channels': 8}, STUDENT_MAPS, TEACHER_MAPS, {}, zero_at_equality=False),
}


def exported() -> dict[str, type[DistillLoss]]:
    items = {name: getattr(losses, name) for name in losses.__all__}
    return {
        name: item
        for name, item in items.items()
        if isinstance(item, type) and issubclass(item, DistillLoss) and item is not DistillLoss
    }


LOSSES = exported()
if unlisted := sorted(LOSSES.keys() - SETTINGS.keys()):
    pytest.fail(
        f'{", ".join(unlisted)} of mmkd_plugin.losses without a contract: '
        f'add an entry to SETTINGS in {__file__}, which says how to try a loss',
        pytrace=False,
    )
if stale := sorted(SETTINGS.keys() - LOSSES.keys()):
    pytest.fail(
        f'{", ".join(stale)} in SETTINGS of {__file__}, but no DistillLoss in mmkd_plugin.losses.__all__: '
        'export the loss, or remove the entry',
        pytrace=False,
    )

pytestmark = pytest.mark.parametrize('name', SETTINGS)


@dataclass
class Trial:
    """A loss with its connectors built, and what to call it on; the student's taps want gradients."""

    loss: DistillLoss
    student: list[Tensor]
    teacher: list[Tensor]
    needs: dict[str, Any]

    def value(self, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Tensor:
        """The loss, with a change made to every tensor that it gets."""
        taps = ([change(tap) for tap in side] for side in (self.student, self.teacher))
        needs = {key: change(need) if isinstance(need, Tensor) else need for key, need in self.needs.items()}
        return self.loss(*(side if self.loss.relates_layers else side[0] for side in taps), **needs)

    def gradients(self) -> list[Tensor]:
        """Those of the student's taps and of the connectors."""
        gradients = [tensor.grad for tensor in (*self.student, *self.loss.parameters())]
        assert None not in gradients
        return [gradient for gradient in gradients if gradient is not None]


def trial(name: str, seed: int = 0, **arguments: Any) -> Trial:
    """Tries a loss as its setting says; the seed is that of the connectors' weights."""
    setting = SETTINGS[name]
    generator = torch.Generator().manual_seed(0)
    student, teacher = setting.student(generator), setting.teacher(generator)
    loss = LOSSES[name](**{**setting.arguments, **arguments})
    shapes = ([tap.shape for tap in side] for side in (student, teacher))
    torch.manual_seed(seed)
    loss.build_connectors(*(side if loss.relates_layers else side[0] for side in shapes))
    return Trial(loss, [tap.requires_grad_() for tap in student], teacher, setting.needs)


def below(registry: Registry) -> Iterator[Registry]:
    for child in registry.children.values():
        yield child
        yield from below(child)


@pytest.mark.openmmlab
def test_registered_in_the_root_under_its_own_name(name):
    assert LOSSES[name].__name__ == name
    assert MODELS.scope == 'mmengine'
    assert MODELS.module_dict[name] is LOSSES[name]


@pytest.mark.openmmlab
def test_name_is_free_in_every_other_registry(name):
    import mmdet.models  # noqa: F401
    import mmpretrain.models  # noqa: F401

    children = list(below(MODELS))
    assert {'mmdet', 'mmpretrain'} <= {child.scope for child in children}
    assert [child.scope for child in children if name in child.module_dict] == []


@pytest.mark.openmmlab
@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmdet'])
def test_builds_from_a_config_in_any_scope(name, scope):
    with DefaultScope.overwrite_default_scope(scope):
        loss = MODELS.build({'type': name, **SETTINGS[name].arguments, 'loss_weight': 0.5})
    assert type(loss) is LOSSES[name]
    assert loss.loss_weight == 0.5


def test_setting_tries_every_argument_and_need(name):
    parameters = inspect.signature(LOSSES[name]).parameters
    arguments = SETTINGS[name].arguments
    assert {*arguments, 'loss_weight'} == parameters.keys()
    assert [key for key in arguments if arguments[key] == parameters[key].default] == []
    assert SETTINGS[name].needs.keys() == set(LOSSES[name].needs)


def test_defaults_suffice(name):
    assert 0 < LOSSES[name]().loss_weight < float('inf')


def test_forward_takes_the_taps_and_what_it_needs(name):
    parameters = list(inspect.signature(LOSSES[name].forward).parameters)
    assert parameters == ['self', 'student', 'teacher', *LOSSES[name].needs]


def test_value_is_a_finite_scalar_not_below_zero(name):
    value = trial(name).value()
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert value >= 0


def test_every_argument_counts(name):
    parameters = inspect.signature(LOSSES[name]).parameters
    for key in SETTINGS[name].arguments:
        assert trial(name, **{key: parameters[key].default}).value() != trial(name).value(), key


def test_linear_in_the_weight(name):
    value = trial(name, loss_weight=1.0).value()
    assert value > 0
    for weight in (0.25, 30.0):
        torch.testing.assert_close(trial(name, loss_weight=weight).value(), weight * value)


def test_weight_zero_gives_exactly_zero(name):
    weightless = trial(name, loss_weight=0.0)
    value = weightless.value()
    assert value == 0
    value.backward()
    assert all((gradient == 0).all() for gradient in weightless.gradients())


def test_gradient_reaches_the_student_and_every_connector(name):
    tried = trial(name)
    tried.value().backward()
    for gradient in tried.gradients():
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_no_gradient_reaches_the_teacher(name):
    tried = trial(name)
    for tap in tried.teacher:
        tap.requires_grad_()
    tried.value().backward()
    assert [tap.grad for tap in tried.teacher] == [None] * len(tried.teacher)


def test_tensors_stay_as_they_are(name):
    tried = trial(name)
    before = copy.deepcopy((tried.student, tried.teacher, tried.needs))
    tried.value().backward()
    torch.testing.assert_close((tried.student, tried.teacher, tried.needs), before, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_float32_under_autocast(name, dtype):
    tried = trial(name)
    expected = tried.value()
    with torch.autocast('cpu', dtype=dtype):
        value = tried.value()
        of_halves = tried.value(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    assert value.dtype == of_halves.dtype == torch.float32
    assert of_halves.isfinite()
    # a learnable connector may run in half precision, the loss itself may not
    torch.testing.assert_close(value, expected, rtol=0.05 if list(tried.loss.parameters()) else 0, atol=0)
    (value + of_halves).backward()
    assert all(gradient.isfinite().all() for gradient in tried.gradients())


def test_mean_over_the_batch(name):
    if not SETTINGS[name].batch_mean:
        pytest.skip('is no mean over the samples')
    tried = trial(name)
    torch.testing.assert_close(tried.value(lambda tensor: torch.cat([tensor, tensor])), tried.value())


def test_batch_of_one(name):
    tried = trial(name)
    value = tried.value(lambda tensor: tensor[:1])
    assert value.isfinite()
    value.backward()
    assert all(gradient.isfinite().all() for gradient in tried.gradients())


def test_equal_taps_give_zero(name):
    if not SETTINGS[name].zero_at_equality:
        pytest.skip('is not zero at equality')
    tried = trial(name)
    tried.teacher = [tap.detach().clone() for tap in tried.student]
    value = tried.value()
    torch.testing.assert_close(value, torch.zeros(()), rtol=0, atol=1e-6)
    value.backward()
    for gradient in tried.gradients():
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def test_same_value_each_time_and_in_eval_mode(name):
    tried = trial(name)
    if list(tried.loss.buffers()):
        pytest.skip('keeps statistics')
    value = tried.value()
    assert tried.value() == value
    tried.loss.eval()
    assert tried.value() == value


def test_state_dict_round_trip(name):
    tried, other = trial(name, seed=0), trial(name, seed=1)
    state = copy.deepcopy(tried.loss.state_dict())
    other.loss.load_state_dict(state, strict=True)
    torch.testing.assert_close(other.loss.state_dict(), state, rtol=0, atol=0)
    assert other.value() == tried.value()


def test_deepcopy(name):
    tried = trial(name)
    twin = copy.deepcopy(tried.loss)
    assert repr(twin) == repr(tried.loss)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in tried.loss.parameters()}
    value = tried.value()
    tried.loss = twin
    assert tried.value() == value


def test_repr_names_the_arguments(name):
    text = repr(trial(name, loss_weight=0.25).loss)
    assert text.startswith(f'{name}(')
    for key, given in {**SETTINGS[name].arguments, 'loss_weight': 0.25}.items():
        shown = f'{given:g}' if isinstance(given, float) else repr(given)
        assert f'{key}={shown}' in text


def test_docs_name_the_paper(name):
    module = sys.modules[LOSSES[name].__module__]
    functions = [
        item for item in vars(module).values() if inspect.isfunction(item) and item.__module__ == module.__name__
    ]
    docs = [module.__doc__, LOSSES[name].__doc__, *(function.__doc__ for function in functions)]
    assert any('arXiv' in (text or '') for text in docs)
