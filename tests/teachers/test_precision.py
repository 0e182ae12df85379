import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmkd_plugin import distill
from mmkd_plugin.facts import Batch
from mmkd_plugin.losses.base import full_precision
from mmkd_plugin.networks import Tap
from mmkd_plugin.teachers import Frozen, build_source, build_teacher, precision
from mmkd_plugin.teachers.precision import LowWeights, Precision, example_images, lost_of_spread
from tests.conftest import KD, batch, build, student_cfg
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

FC, LAYER2 = Tap('head.fc'), Tap('backbone.layer2')
BF16 = {'type': 'bf16', 'tolerance': 0.5}  # random weights tell images less apart than trained ones


@pytest.fixture(autouse=True)
def _any_cpu_will_do(monkeypatch):
    monkeypatch.setattr(precision, 'computes_fast', lambda *_: True)


@pytest.fixture
def told(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(precision, 'print_log', lambda text, *_: said.append(text))
    return said


def made(student, teacher, *taps, **spec):
    source: Any = build_source({'model': teacher, **spec}, 'teacher', student)
    source.probe(Batch(torch.zeros(2, 1, 28, 28)), dict.fromkeys(taps or (FC, LAYER2)))
    source.load()
    source.get_ready(torch.zeros(1))
    return source


def read(source, images):
    return source.read(Batch(images), source.wanted)


@pytest.mark.parametrize(
    ('given', 'text'),
    [
        ('bf', "is 'bf16' meant"), (16, 'expected'), (True, 'expected'), ({'tolerance': 0.1}, 'expected'),
        ({'type': 'bf16', 'most': 1}, 'expected'), ({'type': 'bf16', 'tolerance': 0}, 'tolerance=0 given'),
        ({'type': 'fp16', 'tolerance': 'no'}, "tolerance='no' given"),
        ({'type': 'fp32', 'tolerance': 1}, 'drop tolerance'),
    ],
)  # fmt: skip
def test_what_is_not_understood(given, text):
    with pytest.raises(ValueError, match=text):
        build_teacher({'model': student_cfg(), 'untrained': True, 'precision': given})


def test_what_is_understood():
    assert Precision.read(None, 'a') is None
    assert Precision.read('fp32', 'a') == Precision(torch.float32)
    assert Precision.read({'type': 'fp16', 'tolerance': 1}, 'a') == Precision(torch.float16, 1.0)


def test_fp32_changes_no_bit(student, teacher):
    plain, full = made(student, copy.deepcopy(teacher)), made(student, teacher, precision='fp32')
    images = batch()['inputs']
    torch.testing.assert_close(read(full, images), read(plain, images), rtol=0, atol=0)


@pytest.mark.parametrize('optimize', [True, False])
@pytest.mark.parametrize('kind', ['bf16', 'fp16'])
def test_values_are_nearly_those_of_float32(student, teacher, kind, optimize):
    before = copy.deepcopy(teacher.state_dict())
    full = made(student, copy.deepcopy(teacher))
    low = made(student, teacher, precision={'type': kind, 'tolerance': 0.5}, optimize=optimize)
    images = torch.cat([batch(8)['inputs'] * scale for scale in (0.2, 1, 5)])
    expected, got = read(full, images), read(low, images)
    for tap, value in got.items():
        assert value.dtype == torch.float32
        assert 0 < lost_of_spread(value, expected[tap]) < (0.05 if kind == 'bf16' else 0.005), tap
    convolution = low.model.backbone.layer1[0].conv1
    assert convolution.weight.dtype == (torch.bfloat16 if kind == 'bf16' else torch.float16)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())  # the given one is another's


@pytest.mark.parametrize('spec', [{'precision': 'fp32'}, {'precision': BF16}])
def test_autocast_of_the_student_changes_nothing(student, teacher, spec):
    source, images = made(student, teacher, **spec), batch()['inputs']
    expected = read(source, images)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast('cpu', dtype):
            got = read(source, images)
            assert torch.get_autocast_dtype('cpu') == dtype
            assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype  # and the student's goes on
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32


def test_it_stays_in_its_precision_whatever_the_student_is_in(student, teacher):
    source, images = made(student, teacher, precision=BF16), batch()['inputs']
    expected = read(source, images)
    source.get_ready(torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(read(source, images.double()), expected, rtol=0, atol=0)
    assert source.model.backbone.layer1[0].conv1.weight.dtype == torch.bfloat16


def test_casting_once_is_autocast_of_the_plain_network(student, teacher):
    reference = copy.deepcopy(teacher).eval()
    source, images = made(student, teacher, FC, precision=BF16, optimize=False), batch()['inputs']
    with torch.no_grad():
        with torch.autocast('cpu', torch.bfloat16):
            features = reference.extract_feat(images)[0].float()
        expected = reference.head.fc(features)  # scores in float32
    assert reference.head.fc.weight.dtype == source.model.head.fc.weight.dtype == torch.float32
    torch.testing.assert_close(read(source, images)[FC], expected, rtol=0, atol=0)


def test_what_is_lost_is_told(student, teacher, told):
    made(student, teacher, precision=BF16)
    assert 'teacher: computes in bf16, and loses of the spread of its values: head.fc ' in told[0]
    assert 'backbone.layer2' in told[0]
    assert 'nats at head.fc' in told[0]


def test_too_much_is_refused_and_can_be_allowed(student, teacher):
    with torch.no_grad():  # a constant part, far larger than what tells images apart
        teacher.backbone.layer4[-1].bn2.bias.fill_(100)
    with pytest.raises(ValueError, match=r"in bf16 'head.fc' loses .* at most 10 % are .*precision='fp32'.*") as caught:
        made(student, copy.deepcopy(teacher), FC, precision='bf16')
    allowed = eval(str(caught.value).split('precision=')[-1].removesuffix(' to allow it'))
    made(student, teacher, FC, precision=allowed)


def test_overflow_is_refused(student, teacher):
    with torch.no_grad():
        teacher.backbone.layer4[-1].bn2.weight.mul_(1e7)
    with pytest.raises(ValueError, match=r"in fp16 'head.fc' loses inf % .*Say precision='fp32'$"):
        made(student, teacher, FC, precision={'type': 'fp16', 'tolerance': 1e9})


def test_a_cpu_without_units_uses_float32_and_says_so(student, teacher, monkeypatch, told):
    monkeypatch.setattr(precision, 'computes_fast', lambda *_: False)
    plain, low = made(student, copy.deepcopy(teacher)), made(student, teacher, precision='bf16')
    images = batch()['inputs']
    torch.testing.assert_close(read(low, images), read(plain, images), rtol=0, atol=0)
    assert len(told) == 1
    assert 'would be slower than float32: float32 is used' in told[0]


def test_units_are_read_off_the_cpu(monkeypatch):
    monkeypatch.undo()
    cpu = torch.device('cpu')
    for flags, bf16, fp16 in (
        ('flags\t: fpu avx512f avx512_bf16', True, False), ('flags : amx_bf16 amx_fp16', True, True),
        ('Features : fp asimd bf16', True, False), ('flags : avx2 f16c avx512_fp16', False, False), ('', False, False),
    ):  # fmt: skip
        monkeypatch.setattr(Path, 'read_text', lambda *_, flags=flags: f'processor: 0\n{flags}\n')
        assert precision.computes_fast(torch.bfloat16, cpu) is bf16
        assert precision.computes_fast(torch.float16, cpu) is fp16

    def missing(*_):
        raise FileNotFoundError

    monkeypatch.setattr(Path, 'read_text', missing)
    assert not precision.computes_fast(torch.bfloat16, cpu)


def test_what_is_lost_of_the_spread():
    expected = torch.tensor([[0.0, 10.0], [2.0, 10.0]])  # a spread of 1 in one of two columns, whatever the other is
    assert lost_of_spread(expected + 0.1, expected) == pytest.approx(0.1 * 2**0.5, rel=1e-5)
    assert lost_of_spread(expected, expected) == 0
    assert lost_of_spread(torch.full((2, 2), torch.nan), expected) == float('inf')
    assert lost_of_spread(torch.tensor([[1.0, 3.5]]), torch.tensor([[1.0, 3.0]])) == pytest.approx(0.125**0.5)
    masked = torch.tensor([[0.0, -torch.inf], [2.0, -torch.inf]])
    assert lost_of_spread(masked, masked) == 0


def test_example_images_differ_in_what_is_coarse():
    images = example_images((64, 3, 64, 64), torch.zeros(1))
    assert images.var() == pytest.approx(1, abs=0.1)
    assert images.mean((2, 3)).var() == pytest.approx(0.25, abs=0.1)
    assert torch.equal(images, example_images((64, 3, 64, 64), torch.zeros(1)))


def test_only_plain_layers_are_cast():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean(), None)

    normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    model = nn.ModuleDict(
        dict(plain=nn.Conv2d(1, 1, 1), own=Standardized(1, 1, 1), norm=nn.BatchNorm2d(1), computed=normed,
             attention=nn.MultiheadAttention(2, 1), whole=nn.Sequential(nn.Linear(2, 2)))
    )  # fmt: skip
    low = LowWeights(model, torch.bfloat16, ['whole'])
    cast = {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}
    assert cast == {'plain.weight', 'plain.bias'}
    with torch.autocast('cpu', torch.bfloat16):
        assert model['whole'](torch.ones(1, 2, dtype=torch.bfloat16)).dtype == torch.float32
        assert model['attention'](*[torch.ones(3, 1, 2)] * 3)[0].isfinite().all()
    with low.raised():
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model['plain'].weight.dtype == torch.bfloat16


def test_what_goes_through_it(student, teacher):
    on = {'student': 'backbone.layer2', 'teacher': 'head.fc'}
    loss = {'type': 'FitNetLoss', 'regressor': 'identity', 'on': on, 'through': 'backbone.layer2'}
    through = {'loss_kd': loss}
    model = distill(student, through, teacher={'model': copy.deepcopy(teacher), 'precision': BF16})
    model(**batch(), mode='loss')['loss_kd'].backward()
    assert model.backbone.conv1.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=r"precision='fp16', in which gradients that go through it underflow"):
        distill(build(student_cfg()), through, teacher={'model': teacher, 'precision': 'fp16'})


def tiny_run(work_dir, epochs=2, **more):
    return digits_cfg(
        work_dir, epochs, **{'model.teacher.precision': 'bf16', 'train_dataloader.num_workers': 0, **more}
    )


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    whole = runner_of(tiny_run(tmp_path / 'whole')).train()
    kill(tiny_run(tmp_path / 'killed'), 6)
    torch.testing.assert_close(
        dict(resumed(tiny_run(tmp_path / 'killed')).state_dict()), dict(whole.state_dict()), rtol=0, atol=0
    )


def test_its_accuracy_is_measured_before_training(tmp_path):
    hooks = [{'type': 'TeacherEvalHook', 'at_least': {'accuracy/top1': 90.0}}]
    cfg = tiny_run(tmp_path, 1)
    cfg.custom_hooks = hooks
    model = runner_of(cfg).train()
    assert isinstance(model.distill.teachers['teacher'], Frozen)
    assert model.distill.teachers['teacher'].model.backbone.layer1[0].conv1.weight.dtype == torch.bfloat16


def test_weight_zero_equals_plain(student, teacher):
    plain = copy.deepcopy(student)
    losses = {'loss_kd': {**KD['loss_kd'], 'loss_weight': 0.0}}
    model = distill(student, losses, teacher={'model': teacher, 'precision': BF16})
    data = batch()
    model.parse_losses(model(**data, mode='loss'))[0].backward()
    plain.parse_losses(plain(**data, mode='loss'))[0].backward()
    for (name, got), expected in zip(plain.named_parameters(), model.parameters(), strict=False):
        assert torch.equal(got.grad, expected.grad), name


def test_full_precision_of_modules_reaches_lists():
    assert full_precision(lambda feats, rois: feats[0].dtype)([torch.ones(1).bfloat16()], None) == torch.float32
