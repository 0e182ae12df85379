"""FitNet, AT, NST and ReviewKD on classifiers: the published numbers, read at the published places.

The expected numbers stand here once more, written from the sources (mdistiller and RepDistiller for
CIFAR-100 and ReviewKD, the authors' code for NST on ImageNet), not read from the configs.
test_published_recipes.py looks at students, teachers and schedules.
"""

from pathlib import PurePath
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_plugin.distillation.term import Pair, read_pairs
from mmkd_plugin.networks.taps import Tap, Taps
from mmkd_plugin.teachers import build_teacher, plain_student, untrained
from tests.configs.reading import CONFIGS, lines, load
from tests.conftest import batch

pytestmark = pytest.mark.openmmlab

DIGITS = {
    'fitnet': 'digits/fitnet_resnet.py',
    'at': 'digits/at_resnet.py',
    'nst': 'nst_resnet.py',
    'reviewkd': 'digits/reviewkd_resnet.py',
}
NAMES = {
    method: [digits, *sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.glob(f'classification/{method}/*.py'))]
    for method, digits in DIGITS.items()
}
ALL = [name for names in NAMES.values() for name in names]
NST_IMAGENET = 'classification/nst/nst_resnet101_resnet50_8xb64_in1k.py'

# (weight, epochs of linear warm-up; 1 is none)
REVIEWKD = {
    'digits/reviewkd_resnet.py': (5, 3),  # ours
    'classification/reviewkd/reviewkd_resnet56_resnet20_cifar100.py': (0.6, 20),
    'classification/reviewkd/reviewkd_resnet32x4_resnet8x4_cifar100.py': (5, 20),
    'classification/reviewkd/reviewkd_wrn-40-2_wrn-16-2_cifar100.py': (5, 20),
    'classification/reviewkd/reviewkd_resnet34_resnet18_8xb32_in1k.py': (1, 1),
    'classification/reviewkd/reviewkd_resnet50_mobilenet_v1_8xb32_in1k.py': (8, 1),
}
# What ReviewKD compares, shallow to deep: channels of the student and of the teacher, height and width.
REVIEWKD_SHAPES = {
    'resnet32x4_resnet8x4_cifar100': ([64, 128, 256, 256], [64, 128, 256, 256], [32, 16, 8, 1]),
    'resnet34_resnet18_8xb32_in1k': ([64, 128, 256, 512, 512], [64, 128, 256, 512, 512], [56, 28, 14, 7, 1]),
    'resnet50_mobilenet_v1_8xb32_in1k': (
        [128, 256, 512, 1024, 1024],
        [256, 512, 1024, 2048, 2048],
        [56, 28, 14, 7, 1],
    ),
}


def params(names: list[str]) -> Any:
    return pytest.mark.parametrize('name', names, ids=lambda name: PurePath(name).stem)


def stages(name: str) -> list[str]:
    """The stages after the stem: the benchmark compares a student and its teacher where they end."""
    three = any(student in name for student in ('resnet20', 'resnet8x4', 'wrn-16-2'))
    return [f'backbone.layer{number}' for number in ((1, 2, 3) if three else (1, 2, 3, 4))]


def pairs_of(name: str, loss: str) -> list[Pair]:
    return read_pairs(load(name).model.losses[loss].on, loss)


def networks(name: str) -> tuple[Any, Any]:
    """The plain student and its teacher, of random weights."""
    model = load(name).model
    return MODELS.build(plain_student(model)), build_teacher(untrained(model.teacher)).model


def read(model: Any, taps: list[Tap], size: int) -> list[torch.Tensor]:
    """What taps give for random images of a size in pixels."""
    recorded = Taps(model.eval(), taps, clone=taps)
    with recorded.recording(), torch.no_grad():
        model(torch.rand(2, next(model.parameters()).size(1), size, size) - 0.5)
    return [recorded.values()[tap] for tap in taps]


def small_size(name: str) -> int:
    """Of images, in pixels; on ImageNet smaller than the real ones."""
    return 64 if 'in1k' in name else 32 if 'cifar100' in name else 28


@params(NAMES['fitnet'])
def test_fitnet(name):
    # the third of mdistiller's features, of which the stem's is the first
    expected = {'type': 'FitNetLoss', 'on': 'backbone.layer2', 'loss_weight': 100}
    assert load(name).model.losses == {'loss_fitnet': expected}


@params(NAMES['at'])
def test_at(name):
    assert load(name).model.losses == {'loss_at': {'type': 'ATLoss', 'on': stages(name), 'loss_weight': 1000}}


@params(NAMES['nst'])
def test_nst(name):
    expected = {
        'loss_nst': {'type': 'NSTLoss', 'on': stages(name), 'kernel': 'polynomial', 'loss_weight': 50},
    }
    if name == NST_IMAGENET:
        expected['loss_nst']['on'] = 'backbone.layer4.2.relu:input'
        # T squared, the published 16, is in KDLoss
        expected['loss_kd'] = {'type': 'KDLoss', 'on': 'head.fc', 'temperature': 4, 'loss_weight': 1}
    assert load(name).model.losses == expected


@params(NAMES['reviewkd'])
def test_reviewkd(name):
    losses = load(name).model.losses
    assert set(losses) == {'loss_reviewkd'}
    loss = losses.loss_reviewkd
    pairs = read_pairs(loss.pop('on'), 'loss_reviewkd')
    assert (loss.pop('loss_weight'), loss.pop('schedule', {'warmup': 1})['warmup']) == REVIEWKD[name]
    assert loss == {'type': 'ReviewKDLoss'}
    *of_stages, pooled = pairs
    assert pooled == (Tap('neck'), Tap('neck'))
    assert [['.'.join(tap.path.split('.')[:2]) for tap in pair] for pair in of_stages] == [
        [stage, stage] for stage in stages(name)
    ]
    if 'in1k' not in name:  # there the student, too, is read before its ReLU
        assert [str(student) for student, _ in of_stages] == stages(name)


def test_the_tables_name_every_file():
    assert NAMES['reviewkd'] == [next(iter(REVIEWKD)), *sorted(list(REVIEWKD)[1:])]


@params(ALL)
def test_the_task_loss_keeps_its_weight(name):
    assert 'task_loss' not in load(name).model


@params(list(DIGITS.values()))
def test_a_digits_config_is_the_student_and_at_most_15_lines(name):
    assert lines(name) <= 15
    cfg, plain = load(name).to_dict(), load('digits/resnet_student.py').to_dict()
    model = cfg['model']
    assert model.pop('teacher') == {'config': 'mmkd_plugin::digits/resnet_teacher.py'}
    assert model.pop('type') == 'Distilled'
    assert model.pop('losses')
    model['type'] = model.pop('student')
    assert cfg.pop('custom_hooks') == [*plain.pop('custom_hooks'), {'type': 'TeacherEvalHook'}]
    assert cfg == plain


@params([NST_IMAGENET, *NAMES['reviewkd']])
def test_pre_activations_are_those_of_the_stages_ends(name):
    """What is read before a ReLU gives, through that ReLU, what its stage puts out."""
    pairs = pairs_of(name, 'loss_nst' if name == NST_IMAGENET else 'loss_reviewkd')
    counts = []
    for model, taps in zip(networks(name), zip(*pairs, strict=True), strict=True):
        before = [tap for tap in taps if tap.of_input or tap.path.endswith('.norm')]
        ends = [Tap('.'.join(tap.path.split('.')[:2])) for tap in before]
        values = read(model, [*before, *ends], small_size(name))
        for pre, post in zip(values[: len(before)], values[len(before) :], strict=True):
            assert pre.min() < 0
            assert torch.equal(pre.relu(), post)
        counts.append(len(before))
    number = 1 if name == NST_IMAGENET else len(stages(name))
    assert counts == [number if 'in1k' in name else 0, number]


@pytest.mark.parametrize('pair', REVIEWKD_SHAPES)
def test_what_reviewkd_compares_has_the_published_shapes(pair):
    name = f'classification/reviewkd/reviewkd_{pair}.py'
    *channels, sizes = REVIEWKD_SHAPES[pair]
    pairs = pairs_of(name, 'loss_reviewkd')
    for model, taps, expected in zip(networks(name), zip(*pairs, strict=True), channels, strict=True):
        values = read(model, list(taps), 32 if 'cifar100' in name else 224)
        assert [value.size(1) for value in values] == expected
        assert [value.size(2) if value.ndim == 4 else 1 for value in values] == sizes


@params(ALL)
def test_a_step_runs(name):
    """The distilled model is built, and every loss is finite and teaches the backbone."""
    cfg = load(name)
    size, channels = small_size(name), cfg.model.backbone.get('in_channels', 3)
    cfg.model.teacher = untrained(cfg.model.teacher)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    cfg.model.input_shape = (channels, size, size)
    for loss in cfg.model.losses.values():
        loss.pop('schedule', None)  # nobody says here which epoch it is
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    losses = model(**batch(2, size=size, channels=channels), mode='loss')
    assert set(losses) == {'loss', *cfg.model.losses}
    assert all(value.isfinite() and value > 0 for value in losses.values())
    sum(losses[name] for name in cfg.model.losses).backward()
    first = next(model.backbone.parameters())
    assert first.grad is not None
    assert first.grad.isfinite().all()
    assert first.grad.any()
