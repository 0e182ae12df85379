"""The distilled models are built, and a step runs in which every loss is finite and teaches the student."""

import inspect

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.facts import TrainingData
from tests.configs.reading import DISTILLED, TABLE, Recipe, load, plain_student, scope_of, untrained
from tests.conftest import batch
from tests.detection import batch as scenes

pytestmark = pytest.mark.openmmlab


def by_networks(scope: str):
    """Recipes by teacher and student, whatever the schedule: one step for all methods of a pair of networks."""
    groups: dict[tuple[str, str], list[Recipe]] = {}
    for recipe in DISTILLED:
        if TABLE.settings[recipe.setting]['scope'] == scope:
            groups.setdefault((recipe.teacher, recipe.student), []).append(recipe)
    return groups


CLASSIFIED = by_networks('mmpretrain')
DETECTED = by_networks('mmdet')


def at_all_times(loss, method):
    """A loss without its schedule, but for one that another uses, which ends with the first epoch."""
    loss = {key: value for key, value in loss.items() if key != 'schedule'}
    kind = MODELS.get(loss['type'])
    for argument in kind.uses:
        name = loss.get(argument, inspect.signature(kind).parameters[argument].default)
        loss |= {argument: f'{method}_{name}', 'schedule': {'begin': 1}}
    return loss if 'student' in kind.sides else {**loss, 'schedule': {'end': 1}}


def model_of_all(recipes, shape):
    """A pair's distilled model with the losses of several configs at once, each as its config has it."""
    cfg = load(recipes[0].path)
    model = cfg.model
    model.losses = {
        f'{recipe.method}_{name}': at_all_times(loss, recipe.method)
        for recipe in recipes
        for name, loss in load(recipe.path).model.losses.items()
    }
    if 'teachers' in model:
        model.teachers = {name: untrained(teacher) for name, teacher in model.teachers.items()}
    else:
        model.teacher = untrained(model.teacher)
    model.input_shape = shape
    model.pop('task_loss', None)
    if 'data_preprocessor' in cfg:
        model.data_preprocessor = cfg.data_preprocessor
    with scope_of(recipes[0].setting):
        return MODELS.build(model), plain_student(model)


class Samples:
    """As many training samples as a loss that remembers them wants."""

    def __len__(self):
        return 20_000

    def get_data_info(self, index):
        return {'gt_label': index % 100}


@pytest.mark.parametrize(('teacher', 'student'), CLASSIFIED)
def test_classifiers(teacher, student):
    recipes = CLASSIFIED[teacher, student]
    size, channels = {'cifar100': (32, 3), 'digits': (28, 1)}.get(recipes[0].setting, (64, 3))
    torch.manual_seed(0)
    model, _ = model_of_all(recipes, (channels, size, size))
    model.distill.data = TrainingData(Samples())
    MessageHub.get_current_instance().update_info('epoch', 1)
    # of two samples there is one distance, which RKD normalises
    losses = model.train()(**batch(3, size=size, channels=channels), mode='loss')
    assert losses.pop('loss') > 0
    assert len(losses) == sum('student' in loss['on'] for recipe in recipes for loss in recipe.losses.values())
    first = next(model.backbone.parameters())
    for name, value in losses.items():
        assert value.isfinite(), name
        assert value > 0, name
        (gradient,) = torch.autograd.grad(value, first, retain_graph=True)
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def test_detectors():
    """The dry run makes the learnable parts; ReviewKD is as wide inside as FPN, FitNet's regressor as its target."""
    recipes = DETECTED['r50_fpn', 'mobilenet-v2_fpn']
    assert {recipe.method for recipe in recipes} == {'kd', 'dkd', 'fitnet', 'nst', 'reviewkd', 'dkd_reviewkd'}
    model, student = model_of_all(recipes, (3, 64, 64))
    assert type(model).__bases__[1].__name__ == student.type == 'FasterRCNN'
    convs = [m for m in model.distill.modules() if isinstance(m, nn.Conv2d) and m.out_channels > 2]
    assert {conv.out_channels for conv in convs} == {256}
    assert len(convs) == 5 + 10 + 10  # FitNet, ReviewKD, and again beside DKD


@pytest.mark.parametrize(
    ('pair', 'size'),
    [
        ('gfl_r101_r50_fpn_1x', 64),
        ('rtmdet_s_tiny_8xb32-300e', 64),
        ('retinanet_r101_r50_fpn_2x', 64),
        ('fcos_r101_r50-caffe_fpn_gn-head_ms-2x', 64),
        ('atss_r101_r50_fpn_1x', 64),
    ],
)
def test_one_stage_detectors(pair, size):
    """All methods of a pair at once: each teaches, and what it learns itself is as wide as the teacher."""
    recipes = [recipe for recipe in DISTILLED if (recipe.setting, recipe.pair) == ('coco', pair)]
    torch.manual_seed(0)
    model, _ = model_of_all(recipes, (3, size, size))
    losses = model.train()(**scenes(size=(size, size)), mode='loss')
    names = [name for name in losses if name.split('_loss_')[0] in {recipe.method for recipe in recipes}]
    assert len(names) == sum(len(recipe.losses) for recipe in recipes)
    first = model.neck.parameters()
    for name in names:
        assert losses[name].isfinite()
        assert losses[name] > 0
    sum(losses[name] for name in names).backward()
    assert next(first).grad.any()
    assert all(p.grad is not None for p in model.distill.parameters())
