from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mmkd_plugin.losses import DistillLoss
from mmkd_plugin.losses.base import check_logits, check_temperature, full_precision


@full_precision
def identity(*args, **kwargs):
    """Returns its arguments as it got them."""
    return args, kwargs


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_full_and_double_precision_pass_untouched(dtype):
    given = torch.ones(2, dtype=dtype)
    (got,), _ = identity(given)
    assert got is given


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(dtype):
    given = torch.tensor([0.5, -3.0], dtype=dtype)
    (got,), kwargs = identity(given, keyword=given)
    for tensor in (got, kwargs['keyword']):
        assert tensor.dtype == torch.float32
        assert tensor.tolist() == [0.5, -3.0]


def test_half_precision_is_raised_in_lists_and_tuples():
    half, double, whole = torch.ones(1).half(), torch.ones(1).double(), torch.ones(1, dtype=torch.int64)
    (got,), kwargs = identity([half, (half, double), whole], keyword=(half,))
    assert type(got) is list
    assert type(got[1]) is tuple
    assert got[0].dtype == got[1][0].dtype == torch.float32
    assert got[1][1] is double
    assert got[2] is whole
    assert type(kwargs['keyword']) is tuple
    assert kwargs['keyword'][0].dtype == torch.float32


def test_caller_keeps_its_own_list():
    taps = [torch.ones(1).half()]
    identity(taps)
    assert taps[0].dtype == torch.float16


def test_other_arguments_pass_untouched():
    labels = torch.tensor([1, 2])
    args, kwargs = identity(labels, 4.0, None, epoch=3)
    assert args[0] is labels
    assert args[1:] == (4.0, None)
    assert kwargs == {'epoch': 3}


def test_gradient_returns_in_half_precision():
    given = torch.tensor([2.0]).half().requires_grad_()
    (got,), _ = identity(given)
    (got**2).sum().backward()
    assert given.grad is not None
    assert given.grad.dtype == torch.float16
    assert given.grad.item() == 4.0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_is_off_inside_and_on_again_after(dtype):
    @full_precision
    def gram(x: Tensor) -> tuple[bool, Tensor]:
        return torch.is_autocast_enabled('cpu'), x @ x.T

    with torch.autocast('cpu', dtype=dtype):
        enabled, product = gram(torch.full((1, 1), 300.0))
        assert torch.is_autocast_enabled('cpu')
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == dtype
    assert not enabled
    assert product.dtype == torch.float32
    assert product.item() == 9e4  # more than float16 can hold, and not a bfloat16 number


def test_autocast_is_on_again_after_an_error():
    @full_precision
    def fail(x: Tensor) -> None:
        raise ValueError

    with torch.autocast('cpu', dtype=torch.bfloat16):
        with pytest.raises(ValueError):
            fail(torch.ones(1))
        assert torch.is_autocast_enabled('cpu')


class OnGPU(Tensor):
    """A tensor that says that it is on a GPU, for machines without one."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device('cuda')


@pytest.fixture
def gpu_autocast() -> Iterator[None]:
    """Autocast on for GPUs, as `torch.autocast('cuda')` sets it where there is one."""
    torch.set_autocast_enabled('cuda', True)
    yield
    torch.set_autocast_enabled('cuda', False)


@pytest.mark.usefixtures('gpu_autocast')
@pytest.mark.parametrize(
    'call',
    [
        pytest.param(lambda f, x: f(x, x), id='positional'),
        pytest.param(lambda f, x: f(4.0, x), id='after a number'),
        pytest.param(lambda f, x: f(student=x, teacher=x), id='keywords'),
        pytest.param(lambda f, x: f([x], [x]), id='lists'),
    ],
)
def test_autocast_of_the_gpu_is_off_however_its_tensors_come(call):
    @full_precision
    def enabled(*args: object, **kwargs: object) -> bool:
        return torch.is_autocast_enabled('cuda')

    assert not call(enabled, torch.ones(1).as_subclass(OnGPU))
    assert torch.is_autocast_enabled('cuda')


def test_name_and_docstring_stay():
    @full_precision
    def some_loss(student: Tensor) -> Tensor:
        """Says what it is."""
        return student

    assert some_loss.__name__ == 'some_loss'
    assert some_loss.__doc__ == 'Says what it is.'


def test_loss_weight():
    assert DistillLoss().loss_weight == 1.0
    assert DistillLoss(loss_weight=0).loss_weight == 0.0
    assert 'loss_weight=0.5' in repr(DistillLoss(0.5))


@pytest.mark.parametrize('weight', [-1e-9, float('nan'), float('inf'), -float('inf')])
def test_wrong_weight_is_refused_in_the_name_of_the_loss(weight):
    class MyLoss(DistillLoss):
        pass

    with pytest.raises(ValueError, match=f'MyLoss: loss_weight={weight} given, expected a finite number >= 0'):
        MyLoss(loss_weight=weight)


def test_loss_without_learnable_parts_needs_no_connectors():
    loss = DistillLoss()
    loss.build_connectors(torch.Size([2, 3]), torch.Size([2, 5]))
    assert list(loss.parameters()) == []
    assert loss.needs == ()
    assert loss.relates_layers is False


@pytest.mark.parametrize('temperature', [1, 0.5, 4.0, 1e5])
def test_positive_temperature_passes_as_a_float(temperature):
    checked = check_temperature(temperature)
    assert checked == temperature
    assert isinstance(checked, float)


@pytest.mark.parametrize('temperature', [0, -4.0, float('nan'), float('inf')])
def test_wrong_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match=f'temperature={temperature} given, expected a finite number > 0'):
        check_temperature(temperature)


def test_logits_of_one_shape_pass():
    check_logits(torch.zeros(2, 3), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ('student', 'teacher'), [((2, 3), (2, 4)), ((2, 3), (3, 3)), ((2,), (2,)), ((2, 3, 1), (2, 3, 1))]
)
def test_logits_of_other_shapes_are_refused_with_what_to_do(student, teacher):
    with pytest.raises(ValueError, match=r'same class set[\s\S]*tap the classifier layer') as error:
        check_logits(torch.zeros(student), torch.zeros(teacher))
    assert str(student) in str(error.value)
    assert str(teacher) in str(error.value)
