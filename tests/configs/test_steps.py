"""The distilled models are built, and a step runs in which every loss is finite and teaches the student."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from tests.configs.reading import DISTILLED, TABLE, Recipe, load, plain_student, scope_of, untrained
from tests.conftest import batch

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


def model_of_all(recipes, shape):
    """A pair's distilled model with the losses of several configs at once, each as its config has it."""
    cfg = load(recipes[0].path)
    model = cfg.model
    model.losses = {
        f'loss_{recipe.method}_{name}': {key: value for key, value in loss.items() if key != 'schedule'}  # which epoch?
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


@pytest.mark.parametrize(('teacher', 'student'), CLASSIFIED)
def test_classifiers(teacher, student):
    recipes = CLASSIFIED[teacher, student]
    size, channels = {'cifar100': (32, 3), 'digits': (28, 1)}.get(recipes[0].setting, (64, 3))
    torch.manual_seed(0)
    model, _ = model_of_all(recipes, (channels, size, size))
    losses = model.train()(**batch(2, size=size, channels=channels), mode='loss')
    assert losses.pop('loss') > 0
    assert len(losses) == sum(len(recipe.losses) for recipe in recipes)
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
