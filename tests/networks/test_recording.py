"""Taps that count calls and taps that write, each through a training step and the Runner."""

import copy
from typing import Any, ClassVar

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_plugin import distill
from mmkd_plugin.losses import DistillLoss, fitnet_loss, kd_loss
from tests.conftest import KD, batch, student_cfg, trained_like
from tests.detection import batch as scenes
from tests.detection import detector, faster_rcnn_cfg, one_stage_cfg
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
LEVELS = range(4)


class TestCountingTaps:
    HINT: ClassVar[dict[str, Any]] = {'type': 'FitNetLoss', 'regressor': 'identity', 'loss_weight': 1.0}

    def by(self, written):
        """A hint on what the shared convolution of the RPN makes of each level."""
        losses = {'loss_hint': {**self.HINT, 'on': [written(level) for level in LEVELS]}}
        model = distill(detector(faster_rcnn_cfg()), losses, teacher=detector(faster_rcnn_cfg(), 1)).train()
        return model, model(**scenes(), mode='loss')['loss_hint']

    def test_levels_of_a_dense_head_are_its_calls(self):
        student, teacher = detector(faster_rcnn_cfg()).train(), detector(faster_rcnn_cfg(), 1).eval()
        _, value = self.by(lambda level: f'rpn_head.rpn_conv@{level}')
        images = scenes()['inputs']
        pairs = [[net.rpn_head.rpn_conv(level) for level in net.extract_feat(images)] for net in (student, teacher)]
        expected = sum(fitnet_loss(s, t) for s, t in zip(*pairs, strict=True))
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)

    def test_the_same_levels_by_the_heads_output(self):
        _, calls = self.by(lambda level: f'rpn_head.rpn_cls@{level}')
        _, outputs = self.by(lambda level: f'rpn_head[0][{level}]')
        torch.testing.assert_close(calls, outputs)

    def test_what_goes_in_at_a_call(self):
        _, inputs = self.by(lambda level: f'rpn_head.rpn_conv@{level}:input')
        _, neck = self.by(lambda level: f'neck[{level}]')
        torch.testing.assert_close(inputs, neck)

    def test_the_teacher_stops_at_the_call_that_is_read(self):
        losses = {'loss_hint': {**self.HINT, 'on': 'rpn_head.rpn_conv@1'}}
        model = distill(detector(faster_rcnn_cfg()), losses, teacher=detector(faster_rcnn_cfg(), 1)).train()
        data = scenes()
        model.distill.prepare(model, data['inputs'])
        calls = []
        teacher = model.distill.teachers['teacher'].model
        teacher.rpn_head.rpn_conv.register_forward_pre_hook(lambda *_: calls.append(1))
        model(**data, mode='loss')
        assert len(calls) == 2

    def test_retinanet(self):
        cfg = one_stage_cfg('RetinaNet')
        on = [f'bbox_head.cls_convs.0@{level}' for level in LEVELS]
        losses = {'loss_hint': {'type': 'FitNetLoss', 'on': on, 'regressor': 'conv'}}
        model = distill(detector(cfg), losses, teacher=detector(cfg, 1)).train()
        model(**scenes(), mode='loss')['loss_hint'].backward()
        assert model.bbox_head.cls_convs[0].conv.weight.grad.abs().sum() > 0

    @pytest.mark.parametrize(
        ('on', 'match'),
        [
            (
                'rpn_head.rpn_conv',
                r"once for each feature level, and only the last.*'rpn_head.rpn_conv@0' \.\.\.",
            ),
            ('rpn_head.rpn_conv@4', r'is call 4 of a module that runs 4 times in one pass, counted from 0'),
            ('backbone.layer1@1', r"is call 1 of a module that runs 1 times in one pass, counted from 0: '"),
        ],
    )
    def test_mistakes(self, on, match):
        with pytest.raises(ValueError, match=match):
            distill(
                detector(faster_rcnn_cfg()), {'loss_h': {**self.HINT, 'on': on}}, teacher=detector(faster_rcnn_cfg(), 1)
            )

    def test_through_the_runner(self, tmp_path):
        from mmengine.config import Config

        from mmkd_plugin import config_path

        cfg = Config.fromfile(config_path('digit_scenes/fitnet_faster_rcnn.py'))
        on = [f'rpn_head.rpn_conv@{level}' for level in LEVELS]
        cfg.model.losses.loss_fitnet.on = on
        cfg.work_dir, cfg.custom_hooks, cfg.log_level = str(tmp_path), [{'type': 'DistillHook'}], 'WARNING'
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.train_dataloader.dataset.images = 8
        cfg.train_dataloader.batch_size = 4
        cfg.train_cfg.max_epochs, cfg.param_scheduler = 1, []
        model = runner_of(cfg).train()
        assert len(model.distill.losses.loss_fitnet) == 4


@MODELS.register_module()
class AnyLoss(DistillLoss):
    """Of any number of layers of any shape."""

    relates_layers: ClassVar[bool] = True

    def forward(self, student, teacher):
        return sum((s.mean() - t.mean()) ** 2 for s, t in zip(student, teacher, strict=True))


class TestWritingTaps:
    """Student features go through the teacher's later layers, with gradient into the student alone."""

    ON: ClassVar[dict[str, Any]] = {'on': {'student': 'backbone.layer2', 'teacher': 'head.fc'}}
    THROUGH: ClassVar[dict[str, Any]] = {'loss_kd': {**KD['loss_kd'], **ON, 'through': 'backbone.layer2'}}

    def test_what_the_teacher_makes_of_the_students_features(self, student, teacher):
        trained_like(student)  # or else residual branches begin with zero
        model = distill(copy.deepcopy(student), self.THROUGH, teacher=copy.deepcopy(teacher)).train()
        data = batch()
        value = model(**data, mode='loss')['loss_kd']
        value.backward()
        own, teacher = copy.deepcopy(student).train(), teacher.eval()
        stem = own.backbone
        features = stem.layer2(stem.layer1(stem.relu(stem.bn1(stem.conv1(data['inputs'])))))
        later = teacher.backbone.layer4(teacher.backbone.layer3(features))
        crossed = teacher.head.fc(later.mean((2, 3)))
        expected = kd_loss(crossed, teacher(data['inputs'], mode='tensor').detach(), 4.0)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
        expected.backward()
        for name in ('conv1.weight', 'layer2.1.conv2.weight', 'layer1.0.bn1.bias'):
            grads = [net.backbone.get_parameter(name).grad for net in (model, own)]
            torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-6)
            assert grads[0].abs().sum() > 0

    def test_no_gradient_elsewhere(self, student, teacher):
        model = distill(student, self.THROUGH, teacher=teacher).train()
        model(**batch(), mode='loss')['loss_kd'].backward()
        assert all(p.grad is None for p in model.distill.teachers['teacher'].model.parameters())
        assert all(p.grad is None for p in model.backbone.layer3.parameters())

    def test_a_copy_of_the_teacher_learns_nothing(self, teacher):
        plain = {'model': teacher, 'optimize': False}
        model = distill(copy.deepcopy(teacher).eval(), self.THROUGH, teacher=plain)
        assert model(**batch(), mode='loss')['loss_kd'].abs() < 1e-6

    def test_the_students_value_stays_what_it_is(self, student, teacher):
        """The teacher's next module may work in place."""
        losses = {
            'loss_kd': {**self.THROUGH['loss_kd'], 'on': {'student': 'backbone.layer2.1.bn2', 'teacher': 'head.fc'},
                        'through': 'backbone.layer2.1.bn2'},
            'loss_hint': {'type': 'FitNetLoss', 'on': 'backbone.layer2.1.bn2', 'regressor': 'identity'},
        }  # fmt: skip
        alone = {'loss_hint': losses['loss_hint']}
        models = [distill(copy.deepcopy(student), each, teacher=copy.deepcopy(teacher)) for each in (losses, alone)]
        values = [model.train()(**batch(), mode='loss')['loss_hint'] for model in models]
        assert torch.equal(*values)

    def test_levels_of_a_detector(self):
        """As CrossKD does: each level of the student through the later layers of the teacher's head."""
        cfg = one_stage_cfg('RetinaNet')
        cfg['bbox_head']['stacked_convs'] = 2
        losses = {
            'loss_cross': {
                'type': 'FitNetLoss', 'regressor': 'identity', 'loss_weight': 1.0,
                'on': {'student': [f'bbox_head.cls_convs.0@{level}' for level in LEVELS],
                       'teacher': [f'bbox_head[0][{level}]' for level in LEVELS]},
                'through': [f'bbox_head.cls_convs.0@{level}' for level in LEVELS],
            }
        }  # fmt: skip
        student, teacher = detector(cfg), detector(cfg, 1)
        model = distill(copy.deepcopy(student), losses, teacher={'model': copy.deepcopy(teacher), 'optimize': False})
        value = model.train()(**scenes(), mode='loss')['loss_cross']
        value.backward()
        images, expected = scenes()['inputs'], torch.zeros(())
        student, teacher = student.train(), teacher.eval()
        for s, t in zip(student.extract_feat(images)[:4], teacher.extract_feat(images)[:4], strict=True):
            crossed, own = student.bbox_head.cls_convs[0](s), teacher.bbox_head.cls_convs[0](t)
            later = [teacher.bbox_head.retina_cls(teacher.bbox_head.cls_convs[1](x)) for x in (crossed, own)]
            expected = expected + fitnet_loss(*later)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-7)
        assert model.bbox_head.cls_convs[1].conv.weight.grad is None
        assert model.backbone.conv1.weight.grad.abs().sum() > 0

    @pytest.mark.parametrize(
        ('change', 'match'),
        [
            ({'through': 'backbone.layer3'}, r"what goes through 'teacher' does not fit there.*'backbone.layer3' has"),
            ({'through': 'backbone.layer9'}, r"has no module 'backbone.layer9'"),
            ({'through': ['backbone.layer2', 'head.fc']}, r'needs as many taps of the learner'),
        ],
    )
    def test_mistakes(self, student, teacher, change, match):
        with pytest.raises(ValueError, match=match):
            distill(student, {'loss_kd': {**self.THROUGH['loss_kd'], **change}}, teacher=teacher)

    def test_several_places_read_as_one(self, student, teacher):
        losses = {'loss_kd': {**KD['loss_kd'], 'on': {'student': ['backbone.layer3', 'neck'], 'teacher': 'head.fc'},
                              'through': ['backbone.layer3', 'neck']}}  # fmt: skip
        with pytest.raises(ValueError, match=r"student has at \['backbone.layer3'\] does not reach what is read"):
            distill(student, losses, teacher=teacher)  # the neck cuts it off
        on = {'student': ['backbone.layer1', 'backbone.layer2'], 'teacher': ['backbone.layer2.0', 'head.fc']}
        losses = {'loss_r': {'type': 'AnyLoss', 'on': on, 'through': ['backbone.layer1', 'backbone.layer2']}}
        model = distill(student, losses, teacher=teacher).train()
        assert model(**batch(), mode='loss')['loss_r'] > 0

    def test_a_teacher_of_another_precision(self, student, teacher):
        model = distill(student, self.THROUGH, teacher=teacher.double()).train()
        assert model(**batch(), mode='loss')['loss_kd'] > 0

    def test_behind_what_is_read(self, student, teacher):
        on = {'student': 'backbone.layer3', 'teacher': 'backbone.layer2'}
        losses: dict[str, Any] = {'loss_hint': {'type': 'FitNetLoss', 'on': on, 'regressor': 'identity'}}
        losses['loss_hint']['through'] = 'backbone.layer3'
        with pytest.raises(ValueError, match=r"student has at \['backbone.layer3'\] does not reach what is read"):
            distill(student, losses, teacher=teacher)

    def test_through_the_runner(self, tmp_path):
        def config(folder):
            cfg = digits_cfg(folder, 2)
            cfg.model.losses = {'loss_kd': {**self.THROUGH['loss_kd'], 'on': {'student': 'neck', 'teacher': 'head.fc'}}}
            cfg.model.losses.loss_kd.through = 'neck'
            cfg.model.teacher = {'model': student_cfg(), 'untrained': True}
            cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
            return cfg

        whole = runner_of(config(tmp_path / 'whole')).train().state_dict()
        kill(config(tmp_path / 'part'), 5)
        torch.testing.assert_close(resumed(config(tmp_path / 'part')).state_dict(), whole, rtol=0, atol=0)
