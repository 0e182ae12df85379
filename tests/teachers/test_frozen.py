import copy
from typing import Any

import pytest
import torch
from torch import nn

from mmkd_plugin.facts import Batch
from mmkd_plugin.networks import Tap
from mmkd_plugin.teachers import Frozen, build_teacher
from tests.conftest import batch, build, student_cfg, trained_like

FC, LAYER2 = Tap('head.fc'), Tap('backbone.layer2')


def make(student, spec, *taps, **kwargs):
    spec = build_teacher({'model': spec, **kwargs} if kwargs else spec)
    teacher = Frozen(spec, student)
    teacher.probe(Batch(torch.zeros(2, 1, 28, 28)), dict.fromkeys(taps))
    return teacher


def prepare(teacher, like=None):
    teacher.load()
    teacher.get_ready(torch.zeros(1) if like is None else like)


def read(teacher, images, taps):
    return teacher.read(Batch(images), dict.fromkeys(taps))


def ran(model: Any) -> list[str]:
    names: list[str] = []
    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(lambda *_, name=name: names.append(name))
    return names


def test_values_are_the_plain_networks(student, teacher):
    reference = copy.deepcopy(teacher).eval()
    wrapped = make(student, teacher, FC, LAYER2)
    prepare(wrapped)
    images = batch()['inputs']
    values = read(wrapped, images, [FC, LAYER2])
    with torch.no_grad():
        torch.testing.assert_close(values[FC], reference(images), rtol=1e-4, atol=1e-5)
    assert not values[FC].requires_grad


def test_frozen_and_in_evaluation_mode(student, teacher):
    wrapped = make(student, teacher, FC)
    assert not any(p.requires_grad for p in wrapped.model.parameters())
    assert not any(m.training for m in wrapped.model.modules())


def test_stops_after_the_last_tap(student, teacher):
    wrapped = make(student, teacher, FC, LAYER2)
    names = ran(wrapped.model)
    read(wrapped, batch()['inputs'], [LAYER2])
    assert 'backbone.layer2' in names
    assert not any(n.startswith(('backbone.layer3', 'head', 'neck')) for n in names)
    names.clear()
    read(wrapped, batch()['inputs'], [FC])
    assert 'head.fc' in names


def test_no_loss_of_the_teacher_runs(student, teacher):
    wrapped = make(student, teacher, FC)
    names = ran(wrapped.model)
    read(wrapped, batch()['inputs'], [FC])
    assert not any('loss' in n for n in names)


def test_optimising_folds_norms_but_no_tapped_ones(student, teacher):
    wrapped = make(student, teacher, Tap('backbone.conv1'), FC)
    prepare(wrapped)
    norms = [n for n, m in wrapped.model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms == ['backbone.bn1']


def test_optimising_leaves_the_given_module_alone(student, teacher):
    before = copy.deepcopy(teacher.state_dict())
    prepare(make(student, teacher, FC))
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_optimising_can_be_switched_off(student):
    wrapped = make(student, student_cfg(), FC, untrained=True, optimize=False)
    prepare(wrapped)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in wrapped.model.modules()) == 20


def test_a_wrong_fold_is_noticed_and_not_used(student, teacher, monkeypatch, caplog):
    import mmkd_plugin.teachers.frozen as module

    def break_it(model, pairs):
        pairs[0][0].weight.data.mul_(3)

    monkeypatch.setattr(module, 'fold', break_it)
    said = []
    monkeypatch.setattr(module, 'print_log', lambda text, *_: said.append(text))
    reference = copy.deepcopy(teacher).eval()
    wrapped = make(student, teacher, FC)
    prepare(wrapped)
    images = batch()['inputs']
    assert 'runs as it is' in said[0]
    assert torch.equal(read(wrapped, images, [FC])[FC], reference(images))


def test_images_are_renormalised_for_it(student):
    cfg = student_cfg()
    other: Any = trained_like(
        build({**cfg, 'data_preprocessor': {'type': 'ClsDataPreprocessor', 'mean': [0.0], 'std': [255.0]}})
    )
    reference: Any = copy.deepcopy(other).eval()
    wrapped = make(student, other, FC)
    raw = torch.randint(0, 256, (4, 1, 28, 28))
    seen = student.data_preprocessor({'inputs': raw})['inputs']
    expected = reference(reference.data_preprocessor({'inputs': raw})['inputs'])
    torch.testing.assert_close(read(wrapped, seen, [FC])[FC], expected, rtol=1e-4, atol=1e-5)


def test_student_as_its_own_teacher_is_refused(student):
    with pytest.raises(ValueError, match=r'the teacher is, or shares modules or weights with, the student'):
        Frozen(build_teacher(student), student)
    part = nn.Sequential(student.backbone)
    with pytest.raises(ValueError, match='shares modules or weights'):
        Frozen(build_teacher(part), student)


def test_shared_by_copies_and_follows_the_tensors(student, teacher):
    wrapped = make(student, teacher, FC)
    assert copy.deepcopy(wrapped) is wrapped
    prepare(wrapped, torch.zeros(1, dtype=torch.float64))
    assert read(wrapped, batch()['inputs'].double(), [FC])[FC].dtype == torch.float64
    prepare(wrapped, torch.zeros(1, device='meta'))
    assert wrapped.model.data_preprocessor.device.type == 'meta'
    assert wrapped.model.data_preprocessor.mean.device.type == 'meta'


def test_raw_images_do_not_cast_the_weights(student, teacher):
    wrapped = make(student, teacher, FC)
    prepare(wrapped)
    prepare(wrapped, torch.zeros(1, dtype=torch.uint8))
    assert next(wrapped.model.parameters()).dtype == torch.float32


def test_only_one_network_is_kept(student, teacher):
    wrapped = make(student, teacher, FC)
    prepare(wrapped)
    assert wrapped._spec.model is wrapped.model


def test_tied_weights_are_refused_and_left_trainable(student, teacher):
    teacher.head.fc.weight = student.head.fc.weight
    with pytest.raises(ValueError, match='shares modules or weights'):
        Frozen(build_teacher(teacher), student)
    assert student.head.fc.weight.requires_grad


class Skips(nn.Module):
    """The convolution feeds a norm, and something else; a big constant stands in every output."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)
        self.fc.bias.data.fill_(50.0)

    def forward(self, x):
        h = self.conv(x)
        return self.fc(self.bn(h).relu().mean((2, 3)) + h.mean((2, 3)))


def test_convolution_that_feeds_two_is_not_folded(student, monkeypatch):
    import mmkd_plugin.teachers.frozen as module

    said: list[str] = []
    monkeypatch.setattr(module, 'print_log', lambda text, *_: said.append(text))
    model = trained_like(Skips()).eval()
    expected = model(batch()['inputs'])
    wrapped = make(student, model, Tap('fc'))
    prepare(wrapped)
    assert 'runs as it is' in said[0]
    assert torch.equal(read(wrapped, batch()['inputs'], [Tap('fc')])[Tap('fc')], expected)


@pytest.mark.parametrize(
    'change',
    [
        lambda conv, bn: (nn.utils.spectral_norm(conv), bn),
        lambda conv, bn: (nn.utils.parametrizations.weight_norm(conv), bn),
        lambda conv, bn: (conv, nn.BatchNorm2d(4, track_running_stats=False)),
    ],
)
def test_what_cannot_be_folded_runs_as_it_is(student, change):
    model = nn.Sequential(*change(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), nn.Flatten(), nn.Linear(4 * 26 * 26, 3))
    expected = model.eval()(batch()['inputs'])
    wrapped = make(student, model, Tap('3'))
    prepare(wrapped)
    torch.testing.assert_close(read(wrapped, batch()['inputs'], [Tap('3')])[Tap('3')], expected, rtol=1e-4, atol=1e-5)


def test_wrong_tap_names_the_teacher(student, teacher):
    with pytest.raises(ValueError, match=r"the teacher \(ImageClassifier\) has no module 'head.fcc'.*head.fc"):
        make(student, teacher, Tap('head.fcc'))


def test_dry_run_that_fails_says_how_to_choose_the_size(student):
    with pytest.raises(ValueError, match=r'dry run of the teacher.*input_shape='):
        make(student, nn.Sequential(nn.Linear(3, 3)), Tap('0'))


def test_bare_backbone_as_teacher(student):
    from mmpretrain.registry import MODELS

    wrapped = make(student, MODELS.build(student_cfg()['backbone']), Tap('layer2'))
    assert read(wrapped, batch()['inputs'], [Tap('layer2')])[Tap('layer2')].shape == (4, 8, 14, 14)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_weights_are_read_and_folded_before_they_are_cast(student, teacher, tmp_path, dtype):
    torch.save(teacher.state_dict(), tmp_path / 't.pth')
    spec = {'model': student_cfg(), 'checkpoint': str(tmp_path / 't.pth')}
    precise, cast = make(student, dict(spec), FC), make(student, dict(spec), FC)
    prepare(precise)
    prepare(cast, torch.zeros(1, dtype=dtype))
    for name, value in precise.model.state_dict().items():
        assert torch.equal(cast.model.state_dict()[name], value.to(dtype) if value.is_floating_point() else value), name
    assert cast.fingerprint == precise.fingerprint


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_teacher_of_another_precision_than_the_student(student, teacher, dtype):
    wrapped = make(student, teacher.to(dtype), FC, LAYER2)
    prepare(wrapped)
    assert read(wrapped, batch()['inputs'], [FC])[FC].dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_teacher_on_another_device_than_the_student(student, teacher):
    from mmkd_plugin import distill
    from tests.conftest import KD

    model = distill(student, KD, teacher=teacher.cuda())
    assert model(**batch(), mode='loss')['loss_kd'].isfinite()


def test_no_memory_is_no_wrong_size(student, teacher, monkeypatch):
    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(teacher, 'forward', full)
    with pytest.raises(MemoryError, match=r'dry run of the teacher on images of shape .* found no memory') as caught:
        make(student, teacher, FC)
    assert 'input_shape' not in str(caught.value)


def test_another_teacher_has_another_fingerprint(student):
    fingerprints = set()
    for seed in (1, 2):
        wrapped = make(student, build(student_cfg(), seed), FC)
        prepare(wrapped)
        fingerprints.add(wrapped.fingerprint)
    assert len(fingerprints) == 2
