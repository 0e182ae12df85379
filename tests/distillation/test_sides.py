"""Losses of unequal lists, of several sources and of none, in one run through the Runner."""

from typing import ClassVar

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_plugin.losses import DistillLoss
from tests.conftest import student_cfg
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab


@MODELS.register_module()
class EveryLayerLoss(DistillLoss):
    """How alike images are, between each layer of the student and each of the teacher; any number of both."""

    relates_layers: ClassVar[bool] = True

    def forward(self, student, teacher):
        pairs = [(gram(s), gram(t)) for s in student for t in teacher]
        return self.loss_weight * torch.stack([(s - t).square().mean() for s, t in pairs]).sum()


@MODELS.register_module()
class MeanTeacherLoss(DistillLoss):
    """The distance to the mean of all teachers."""

    sides: ClassVar[tuple[str, ...]] = ('student', 'teachers')

    def forward(self, student, teachers):
        return self.loss_weight * (student - torch.stack([*teachers.values()]).mean(0)).square().mean()


@MODELS.register_module()
class ConfidenceLoss(DistillLoss):
    """The student's own entropy: no teacher."""

    sides: ClassVar[tuple[str, ...]] = ('student',)

    def forward(self, student):
        return self.loss_weight * torch.distributions.Categorical(logits=student).entropy().mean()


def gram(values):
    rows = torch.nn.functional.normalize(values.flatten(1))
    return rows @ rows.mT


def config(folder):
    cfg = digits_cfg(folder, 2)
    cfg.model.pop('teacher')
    cfg.model.teachers = {name: {'model': student_cfg(), 'untrained': True} for name in ('big', 'old')}
    layers = {'student': ['backbone.layer2', 'neck'], 'big': ['backbone.layer1', 'backbone.layer3', 'backbone.layer4']}
    cfg.model.losses = {
        'loss_every': {'type': 'EveryLayerLoss', 'on': layers},
        'loss_mean': {'type': 'MeanTeacherLoss', 'on': 'head.fc', 'loss_weight': 0.1},
        'loss_sure': {'type': 'ConfidenceLoss', 'on': 'head.fc', 'loss_weight': 0.1},
    }
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


def test_they_train_are_killed_and_resumed(tmp_path):
    whole = runner_of(config(tmp_path / 'whole')).train()
    assert whole.distill.losses.loss_every.taps('big')[2].path == 'backbone.layer4'
    assert whole.distill.losses.loss_mean.sources == ['big', 'old']
    assert whole.distill.losses.loss_sure.sources == []
    kill(config(tmp_path / 'part'), 6)
    after = resumed(config(tmp_path / 'part')).state_dict()
    torch.testing.assert_close(after, whole.state_dict(), rtol=0, atol=0)
