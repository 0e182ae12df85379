"""`tools/diagnose.py`: configs that were made wrong on purpose are named, and those that ship are not."""

import copy
import os
from unittest import mock

import pytest
import torch

from mmkd_plugin.diagnosis import FINDINGS, diagnose, found, markdown, plain, text
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import ROOT, parse, tiny_options

pytestmark = pytest.mark.openmmlab
TEACHER = ROOT / 'mmkd_plugin/checkpoints/digits/resnet_teacher.pth'
BASE = "_base_ = __import__('mmkd_plugin').config_path({base!r})\n"


def look(config, checkpoint=None, steps=6, epochs=40, images=100, **values):
    with mock.patch.dict(os.environ):
        given = [str(x) for x in (config, checkpoint) if x is not None]
        args = parse('diagnose.py', *given, '--steps', steps, '--val-images', images)
        args.cfg_options = {**tiny_options(epochs), **values}
        return diagnose(args)


def names(measured):
    return {finding.name for finding, _ in found(measured)}


def write(folder, body, base='kd_resnet.py'):
    path = folder / 'wrong.py'
    path.write_text(BASE.format(base=base) + body)
    return path


def changed_teacher(folder, change):
    """The shipped weights, changed, without the names of the classes."""
    state = copy.deepcopy(torch.load(TEACHER, weights_only=True)['state_dict'])
    change(state)
    path = folder / 'teacher.pth'
    torch.save({'state_dict': state}, path)
    return path


def exchange_classes(state):
    order = torch.tensor([3, 0, 1, 2, 5, 4, 7, 6, 9, 8])
    for key in ('head.fc.weight', 'head.fc.bias'):
        state[key] = state[key][order]


def switch_off(state):
    state['backbone.layer2.1.bn2.weight'].zero_()


def forget(state):
    generator = torch.Generator().manual_seed(0)
    for key, value in state.items():
        if value.is_floating_point() and value.ndim > 1:
            state[key] = value + 0.6 * value.std() * torch.randn(value.shape, generator=generator)


SLOW = """
from mmengine.registry import TRANSFORMS
class Slow:
    def __call__(self, results):
        __import__('time').sleep(0.05)
        return results
TRANSFORMS.register_module(name='SlowOnPurpose', module=Slow, force=True)
del TRANSFORMS, Slow
train_pipeline = [*_base_.train_pipeline, dict(type='SlowOnPurpose')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""


def wrong(name, folder):
    """A config, a checkpoint of the student, and options; the finding has the name."""
    kd = 'configs/kd_resnet.py'
    if name == 'weight-too-large':
        return kd, None, {'model.losses.loss_kd.loss_weight': 1000.0}
    if name == 'weight-too-small':
        return kd, None, {'model.losses.loss_kd.loss_weight': 1e-3}
    if name == 'weight-zero':
        return kd, None, {'model.losses.loss_kd.loss_weight': 0.0}
    if name == 'temperature-too-high':
        return kd, None, {'model.losses.loss_kd.temperature': 500.0}
    if name == 'temperature-too-low':
        return kd, None, {'model.losses.loss_kd.temperature': 0.2}
    if name == 'teacher-untrained':
        path = changed_teacher(folder, lambda s: [v.normal_(0, 0.02) for v in s.values() if v.ndim > 1])
        return kd, None, {'model.teacher.checkpoint': str(path)}
    if name == 'teacher-normalisation':
        body = (
            "model = dict(teacher=dict(_delete_=True, checkpoint={0!r}, model=dict(type='ImageClassifier', "
            "data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=10, mean=[0.0], std=[1.0], to_rgb=False), "
            "backbone=dict(type='ResNet_CIFAR', depth=18, in_channels=1, stem_channels=16, base_channels=16), "
            "neck=dict(type='GlobalAveragePooling'), "
            "head=dict(type='LinearClsHead', num_classes=10, in_channels=128))))\n"
        )
        return write(folder, body.format(str(TEACHER))), None, {}
    if name == 'dead-tap':
        path = changed_teacher(folder, switch_off)
        losses = (
            "model = dict(losses=dict(loss_kd=None, loss_at=dict(type='FitNetLoss', on='backbone.layer2.1.bn2')))\n"
        )
        return write(folder, losses), None, {'model.teacher.checkpoint': str(path)}
    if name == 'class-order':
        return kd, None, {'model.teacher.checkpoint': str(changed_teacher(folder, exchange_classes))}
    if name == 'teacher-no-better':
        path = changed_teacher(folder, forget)
        student = {
            'model.backbone.stem_channels': 16,
            'model.backbone.base_channels': 16,
            'model.head.in_channels': 128,
        }
        return kd, TEACHER, {'model.teacher.checkpoint': str(path), **student}
    if name == 'schedule-never-full':
        return kd, None, {'model.losses.loss_kd.schedule.warmup': 1000}
    if name == 'student-stands-still':
        return kd, None, {'optim_wrapper.optimizer.lr': 0.0, 'param_scheduler': None}
    if name == 'learning-rate-too-large':
        return kd, None, {'optim_wrapper.optimizer.lr': 50.0, 'param_scheduler': None}
    if name == 'data-bound':
        return write(folder, SLOW), None, {}
    if name == 'images-not-normalised':
        return kd, None, {'data_preprocessor.mean': [0.0], 'data_preprocessor.std': [1.0]}
    if name == 'refused':
        return kd, None, {'model.losses.loss_kd.on': 'head.fcc'}
    if name == 'scales-differ':
        path = changed_teacher(folder, lambda s: [s[k].mul_(1e5) for k in ('head.fc.weight', 'head.fc.bias')])
        return kd, None, {'model.teacher.checkpoint': str(path)}
    raise AssertionError(name)


CASES = [
    'weight-too-large', 'weight-too-small', 'weight-zero', 'temperature-too-high', 'temperature-too-low',
    'teacher-untrained', 'teacher-normalisation', 'dead-tap', 'class-order', 'teacher-no-better', 'schedule-never-full',
    'student-stands-still', 'learning-rate-too-large', 'data-bound', 'images-not-normalised', 'refused',
    'scales-differ',
]  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_what_is_wrong_is_named(name, tmp_path):
    config, checkpoint, options = wrong(name, tmp_path)
    measured = look(ROOT / config, checkpoint, **options)
    assert name in names(measured), text(measured)


#: What these do as they are, and why that is no mistake: nothing.
KNOWN: dict[str, set[str]] = {}


@pytest.mark.parametrize('config', ['kd_resnet.py', 'dkd_resnet.py', 'nst_resnet.py', 'digits/mutual_resnet.py'])
def test_shipped_configs_have_no_findings(config):
    measured = look(config_path(config))
    assert names(measured) == KNOWN.get(config, set()), text(measured)
    assert measured.steps == 6
    assert all(loss.share is not None for loss in measured.losses.values())
    if 'mutual' not in config:
        assert (measured.teachers['teacher'].metric or 0) > 95
        assert set(measured.seconds) == {'data', 'student', 'teachers', 'losses', 'update'}
        shares = [measured.task_share['student'], *(loss.share for loss in measured.losses.values())]
        assert sum(shares) == pytest.approx(1, abs=1e-3)
        assert measured.memory['teachers, weights'] > 10 * measured.memory['student, weights']
        assert measured.memory['student, kept for the way back'] > 0


def test_a_detector_without_findings():
    with mock.patch.dict(os.environ):
        args = parse('diagnose.py', config_path('dkd_faster_rcnn.py'), '--steps', 4, '--val-images', 8)
        args.cfg_options = {'train_dataloader.batch_size': 2}
        measured = diagnose(args)
    assert not names(measured), text(measured)
    assert (measured.teachers['teacher'].metric or 0) > 50
    assert measured.metric == 'pascal_voc/mAP'


def test_a_loss_that_begins_later_is_measured_when_it_is_on():
    measured = look(config_path('kd_resnet.py'), **{'model.losses.loss_kd.schedule.begin': 7})
    assert measured.at == 'epoch 7'
    assert measured.losses['loss_kd'].share > 0.3
    assert 'epoch 7' in text(measured)


def test_a_rising_loss_is_judged_at_its_full_weight():
    full = look(config_path('kd_resnet.py')).losses['loss_kd'].share
    rising = look(config_path('kd_resnet.py'), **{'model.losses.loss_kd.schedule.warmup': 20}).losses['loss_kd'].share
    assert rising == pytest.approx(full, abs=0.1)


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_path('kd_resnet.py')
    look(config)
    assert not list(tmp_path.iterdir())


def test_as_json():
    measured = look(config_path('kd_resnet.py'), **{'model.losses.loss_kd.loss_weight': 1000.0})
    told = plain(measured)
    assert told['findings'][0]['name'] == 'weight-too-large'
    assert told['losses']['loss_kd']['weight'] == 1000


def test_a_plain_config_and_a_missing_checkpoint_are_refused(tmp_path):
    with pytest.raises(ValueError, match='trains a ImageClassifier, expected a distillation config'):
        look(config_path('digits/resnet_student.py'))
    with pytest.raises(FileNotFoundError, match='does not exist'):
        look(config_path('kd_resnet.py'), tmp_path / 'no.pth')


def test_the_trouble_page_has_the_list():
    assert markdown() in (ROOT / 'docs/trouble.md').read_text(), (
        'docs/trouble.md has another list than mmkd_plugin/diagnosis/findings.py: put in what '
        '`python tools/diagnose.py --findings` prints'
    )
    assert len({finding.name for finding in FINDINGS}) == len(FINDINGS)


@pytest.mark.parametrize('argv', [[], ['c.py', '--steps', '2'], ['c.py', '--val-images', '0']])
def test_wrong_arguments(argv):
    with pytest.raises(SystemExit):
        parse('diagnose.py', *argv)


def test_of_several_teachers_the_wrong_one_is_named(tmp_path):
    body = (
        "teacher = 'mmkd_plugin::digits/resnet_teacher.py'\n"
        'model = dict(teacher=None, teachers=dict(right=dict(config=teacher), '
        f'other=dict(config=teacher, checkpoint={str(changed_teacher(tmp_path, exchange_classes))!r})), '
        "losses=dict(loss_kd=dict(teacher='right'), loss_b=dict(type='KDLoss', on='head.fc', teacher='other')))\n"
    )
    measured = look(write(tmp_path, body))
    assert set(measured.teachers) == {'right', 'other'}
    seen = {finding.name: text for finding, text in found(measured)}
    assert "'other'" in seen['class-order']
    assert "'right'" not in ' '.join(seen.values())
