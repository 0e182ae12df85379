"""What a loss learns before training, through the Runner."""

import copy
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin import distill
from mmkd_plugin.losses import DistillLoss
from tests.conftest import build, student_cfg, trained_like
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab


@MODELS.register_module()
class PreparedLoss(DistillLoss):
    """Starts from the teacher's last batch norm, before it is folded, and from how often each class occurs."""

    margin: torch.Tensor
    counts: torch.Tensor

    def build_connectors(self, student, teacher):
        assert type(student.module).__name__ == type(teacher.module).__name__
        assert str(student.tap) == 'backbone.layer4.1.bn2'
        self.register_buffer('margin', torch.zeros(teacher[1]))
        self.register_buffer('counts', torch.zeros(10))

    def prepare(self, facts):
        assert facts.networks['student'] is not facts.networks['teacher']
        (norm,) = facts.modules('teacher')
        self.margin.copy_(norm.bias)
        self.counts.copy_(torch.bincount(facts.data.labels(), minlength=10).float())
        self.samples = len(facts.data)

    def forward(self, student, teacher):
        return self.loss_weight * (student.mean() - teacher.mean() - self.margin.mean()) ** 2


class TestFacts:
    @staticmethod
    def config(folder, teacher, hooks=('DistillHook',)):
        cfg = digits_cfg(folder, 2)
        cfg.model.losses = {'loss_p': {'type': 'PreparedLoss', 'on': 'backbone.layer4.1.bn2'}}
        cfg.model.teacher = {'model': student_cfg(), 'checkpoint': str(teacher)}
        cfg.custom_hooks = [{'type': 'EpochSeedHook'}, *({'type': hook} for hook in hooks)]
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        return cfg

    def test_weights_and_data_before_training_and_once(self, tmp_path):
        teacher: Any = trained_like(build(student_cfg(), 7))
        torch.save(teacher.state_dict(), tmp_path / 't.pth')
        model = runner_of(self.config(tmp_path / 'whole', tmp_path / 't.pth')).train()
        loss = model.distill.losses.loss_p[0]
        assert torch.equal(loss.margin, teacher.backbone.layer4[1].bn2.bias)
        assert loss.counts.tolist() == [4] * 10
        assert loss.samples == 40
        kill(self.config(tmp_path / 'part', tmp_path / 't.pth'), 5)
        after = resumed(self.config(tmp_path / 'part', tmp_path / 't.pth'))
        torch.testing.assert_close(after.state_dict(), model.state_dict(), rtol=0, atol=0)

    @pytest.mark.parametrize('late', ['parameter', 'buffer', 'exchanged'])
    def test_what_comes_too_late_for_optimizers_and_averages(self, late, student, teacher):
        class Late(DistillLoss):
            def build_connectors(self, student, teacher):
                self.scale = nn.Parameter(torch.ones(1))

            def prepare(self, facts):
                if late == 'buffer':
                    self.register_buffer('margin', torch.zeros(1))
                else:
                    self.scale = nn.Parameter(torch.zeros(1))
                    if late == 'parameter':
                        self.other = nn.Parameter(torch.zeros(1))

            def forward(self, student, teacher):
                return (self.scale * student - teacher).square().mean()

        model = distill(student, {'loss_l': {'type': Late, 'on': 'head.fc'}}, teacher=teacher)
        with pytest.raises(ValueError, match=r'prepare\(\) made or exchanged parameters or buffers'):
            model.distill.prepare(model, torch.zeros(1))

    def test_a_shape_that_is_kept_keeps_no_network(self, student, teacher):
        class Keeps(DistillLoss):
            def build_connectors(self, student, teacher):
                self.shape = teacher
                assert teacher.numel() == 2 * 10

            def forward(self, student, teacher):
                return (student - teacher).square().mean()

        model = distill(student, {'loss_k': {'type': Keeps, 'on': 'head.fc'}}, teacher=teacher)
        twin = copy.deepcopy(model)
        assert type(twin.distill.losses.loss_k[0].shape) is tuple

    def test_nobody_told_of_the_data(self, tmp_path):
        torch.save(build(student_cfg(), 7).state_dict(), tmp_path / 't.pth')
        with pytest.raises(ValueError, match=r"asks for the training data.*add dict\(type='DistillHook'\)"):
            runner_of(self.config(tmp_path, tmp_path / 't.pth', hooks=())).train()
