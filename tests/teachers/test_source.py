"""Kinds of sources: what a config names, the student's own values, labels, and a kind of one's own."""

import copy
import math
from typing import Any

import pytest
import torch

from mmkd_plugin import distill
from mmkd_plugin.facts import Batch
from mmkd_plugin.losses import kd_loss
from mmkd_plugin.networks import Tap
from mmkd_plugin.teachers import SOURCES, Labels, Source, build_source
from tests.conftest import KD, batch, build, student_cfg
from tests.detection import DKD, detector, faster_rcnn_cfg
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
FC = Tap('head.fc')
OWN: dict[str, Any] = {'own': {'type': 'Own'}}
DEEPER = {'loss_own': {'type': 'FitNetLoss', 'on': {'student': 'backbone.layer3', 'own': 'backbone.layer4'}}}


class TestOwn:
    def test_the_deeper_layer_is_a_constant(self, student):
        model = distill(student, DEEPER, teachers=OWN).train()
        model(**batch(), mode='loss')['loss_own'].backward()
        assert model.backbone.layer3[0].downsample[0].weight.grad.abs().sum() > 0
        assert all(p.grad is None for p in model.backbone.layer4.parameters())

    @pytest.mark.parametrize('on', ['head.fc', {'student': 'head.fc', 'own': 'head.fc'}])
    def test_the_same_place_would_teach_nothing(self, student, on):
        with pytest.raises(ValueError, match=r"compares 'head.fc' of the student with itself, and teaches nothing"):
            distill(student, {'loss_kd': {**KD['loss_kd'], 'on': on}}, teachers=OWN)

    def test_no_second_pass(self, student):
        model = distill(student, DEEPER, teachers=OWN).train()
        calls = []
        model.backbone.register_forward_pre_hook(lambda *_: calls.append(1))
        model(**batch(), mode='loss')
        assert calls == [1]

    def test_rois(self):
        on = {'student': 'roi_head.bbox_head.shared_fcs.0', 'own': 'roi_head.bbox_head.shared_fcs.1'}
        from tests.detection import batch as scenes

        losses = {'loss_own': {'type': 'FitNetLoss', 'on': on, 'regressor': 'conv'}}
        model = distill(detector(faster_rcnn_cfg()), losses, teachers=OWN).train()
        model(**scenes(), mode='loss')['loss_own'].backward()
        assert model.roi_head.bbox_head.shared_fcs[1].weight.grad is None

    def test_through_the_runner(self, tmp_path):
        cfg = digits_cfg(tmp_path, 1)
        del cfg.model['teacher']
        cfg.model.teachers, cfg.model.losses = OWN, DEEPER
        cfg.custom_hooks = [{'type': 'DistillHook'}]
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        runner_of(cfg).train()
        assert (tmp_path / 'epoch_1.pth').is_file()


class TestLabels:
    LABELS = {'virtual': {'type': 'Labels', 'correct': 0.9}}

    def test_by_hand(self, student):
        # methods 31: a for the class, (1 - a) / (C - 1) for the others; rows sum to 1
        model = distill(student, KD, teachers=self.LABELS).train()
        data = batch()
        losses = model(**data, mode='loss')
        model.eval()
        target = torch.full((4, 10), 0.1 / 9)
        for row in range(4):
            target[row, row] = 0.9
        assert torch.allclose(target.sum(1), torch.ones(4))
        twin = build(student_cfg())
        twin.train()
        logits = twin(data['inputs'], mode='tensor')
        torch.testing.assert_close(losses['loss_kd'], kd_loss(logits, target.log(), 4.0))

    def test_softened_as_documented(self):
        # methods 31: p ** (1 / T), renormalised, for C = 100, a = 0.99, T = 20 is 0.0157412 for the class
        logits = torch.full((1, 100), math.log(0.01 / 99))
        logits[0, 3] = math.log(0.99)
        assert (logits / 20).softmax(1)[0, 3].item() == pytest.approx(0.0157412, rel=1e-5)

    @pytest.mark.parametrize(('temperature', 'expected'), [(None, 0.0157412), (20.0, 0.0105021)])
    def test_both_forms(self, temperature, expected):
        """methods 31, C = 100, a = 0.99, T = 20: the paper's form at a loss's temperature, the authors' at 1."""
        source = Labels('virtual', 0.99, temperature)
        batch = Batch(torch.zeros(2, 1, 4, 4), torch.tensor([3, 7]), values={'student': {FC: torch.zeros(2, 100)}})
        target = (source.read(batch, {FC: None})[FC] / (1 if temperature else 20)).softmax(1)
        assert target[[0, 1], [3, 7]].tolist() == pytest.approx([expected] * 2, rel=1e-5)
        assert target.sum(1).tolist() == pytest.approx([1, 1])

    @pytest.mark.parametrize('temperature', [None, 20.0])
    def test_as_sure_of_the_class_as_of_any_is_uniform(self, temperature):
        source = Labels('virtual', 1 / 4, temperature)
        batch = Batch(torch.zeros(1, 1, 4, 4), torch.tensor([2]), values={'student': {FC: torch.zeros(1, 4)}})
        assert source.read(batch, {FC: None})[FC].softmax(1).tolist()[0] == pytest.approx([0.25] * 4)

    def test_the_authors_form_is_their_sum(self, student):
        """Their code's KL, a mean over batch and classes, times the multiplier."""
        alpha, multiplier, classes = 0.9, 100.0, 10
        spec = {'virtual': {'type': 'Labels', 'temperature': 20.0}}
        loss = {'type': 'KDLoss', 'on': 'head.fc', 'temperature': 1.0, 'loss_weight': alpha * multiplier / classes}
        model, data = distill(student, {'loss_kd': loss}, teachers=spec).train(), batch()
        value = model(**data, mode='loss')['loss_kd']
        target = torch.full((4, 10), 0.01 / 9)
        for row in range(4):
            target[row, row] = 0.99
        log_p = build(student_cfg()).train()(data['inputs'], mode='tensor').log_softmax(1)
        theirs = torch.nn.functional.kl_div(log_p, (target / 20).softmax(1), reduction='none').mean()
        torch.testing.assert_close(value, alpha * multiplier * theirs, rtol=1e-4, atol=1e-6)

    def test_mixed_images_have_no_label(self, teacher):
        cfg = student_cfg()
        cfg['train_cfg'] = {'augments': {'type': 'Mixup', 'alpha': 0.2}}
        with pytest.raises(ValueError, match=r"'virtual' of losses\['loss_kd'\] \(KDLoss\) needs one class per image"):
            distill(build(cfg), KD, teachers=self.LABELS)

    def test_classes_of_rois(self):
        from tests.detection import batch as scenes

        model = distill(detector(faster_rcnn_cfg()), DKD, teachers=self.LABELS).train()
        assert model(**scenes(), mode='loss')['loss_dkd'] > 0
        region = next(iter(model.distill.regions.values()))
        assert len(region.labels) == 32

    @pytest.mark.parametrize(
        ('spec', 'on', 'match'),
        [
            ({'correct': 1}, 'head.fc', 'correct=1 given, expected less'),
            ({'correct': 0}, 'head.fc', 'correct=0 given, expected a finite number > 0'),
            ({'right': 0.9}, 'head.fc', r"virtual \(Labels\) has the unknown keys \['right'\].*Known: correct"),
            ({'temperature': 0}, 'head.fc', 'virtual: temperature=0 given, expected a finite number > 0'),
            ({}, 'backbone.layer4', r"answers for the student's logits, and 'backbone.layer4' reads \(2, 32, 28, 28\)"),
        ],
    )
    def test_mistakes(self, student, spec, on, match):
        losses = {'loss_at': {'type': 'FitNetLoss', 'on': on, 'regressor': 'identity'}}
        with pytest.raises(ValueError, match=match):
            distill(student, losses, teachers={'virtual': {'type': 'Labels', **spec}})

    def test_through_the_runner(self, tmp_path):
        cfg = digits_cfg(tmp_path, 1, 'kd_resnet.py')
        cfg.model.teacher = {'_delete_': True, 'type': 'Labels'}
        cfg.model.teacher.pop('_delete_')
        cfg.custom_hooks = [{'type': 'TeacherEvalHook'}]  # which has nothing to evaluate
        runner_of(cfg).train()
        assert (tmp_path / 'epoch_1.pth').is_file()


class TestKinds:
    def test_frozen_is_meant_where_no_type_is_given(self, student, teacher):
        for spec in (teacher, {'model': teacher}, {'type': 'Frozen', 'model': teacher}):
            assert type(build_source(spec, 'x', student)).__name__ == 'Frozen'

    def test_a_model_in_place_of_a_kind(self, student):
        with pytest.raises(ValueError, match=r"type='ImageClassifier', which is no kind of teacher.*model=dict"):
            build_source(student_cfg(), 'x', student)
        with pytest.raises(ValueError, match=r"type='Onw'.*did you mean Own"):
            build_source({'type': 'Onw'}, 'x', student)

    def test_the_student_is_no_name_of_a_source(self, student, teacher):
        with pytest.raises(ValueError, match="teachers names one 'student'"):
            distill(student, KD, teachers={'student': teacher})

    def test_a_kind_of_ones_own(self, student):
        @SOURCES.register_module()
        class Uniform(Source):
            def read(self, batch, taps):
                return {tap: torch.zeros_like(batch.values['student'][tap]) for tap in taps}

        try:
            losses = distill(student, KD, teacher={'type': 'Uniform'}).train()(**batch(), mode='loss')
            assert losses['loss_kd'] > 0
        finally:
            SOURCES.module_dict.pop('Uniform')

    def test_what_a_source_keeps_is_in_checkpoints(self, tmp_path):
        """A moving average of the student's classifier, resumed exactly."""

        @SOURCES.register_module()
        class ClassifierAverage(Source):
            kept: Any

            def __init__(self, name, student):
                super().__init__(name)
                self.kept = copy.deepcopy(student.head.fc).requires_grad_(False)

            @classmethod
            def from_spec(cls, spec, name, student):
                return cls(name, student)

            def get_ready(self, like, student, progress):
                if progress is not None:  # otherwise there was no update
                    self.kept.weight.lerp_(student.head.fc.weight.detach(), 0.1)

            def asks_student(self, taps):
                return [Tap('head.fc', of_input=True)]

            def read(self, batch, taps):
                (features,) = self.asks_student(taps)
                return dict.fromkeys(taps, self.kept(batch.values['student'][features].detach()))

        def config(folder):
            cfg = digits_cfg(folder, 2)
            cfg.model.pop('teacher')
            cfg.model.teachers, cfg.model.losses = {'average': {'type': 'ClassifierAverage'}}, KD
            cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
            return cfg

        try:
            whole = runner_of(config(tmp_path / 'whole')).train()
            assert not torch.equal(whole.distill.kept.average.weight, whole.head.fc.weight)
            kill(config(tmp_path / 'part'), 6)
            after = resumed(config(tmp_path / 'part')).state_dict()
            torch.testing.assert_close(after, whole.state_dict(), rtol=0, atol=0)
            assert 'distill.kept.average.weight' in after
        finally:
            SOURCES.module_dict.pop('ClassifierAverage')

    def test_an_answer_that_is_none(self, student):
        class Silent(Source):
            def read(self, batch, taps):
                return {}

        with pytest.raises(TypeError, match=r"'t' \(Silent\) was asked for \['head.fc'\] and gave {}"):
            distill(student, KD, teachers={'t': {'type': Silent}})

    def test_a_kind_without_its_dictionary(self, student):
        with pytest.raises(ValueError, match=r"teacher='Own' given, which is a kind of teacher: say dict\(type='Own'"):
            distill(student, KD, teacher='Own')

    def test_no_pass_to_go_through(self, student):
        losses = {'loss_kd': {**KD['loss_kd'], 'on': {'student': 'neck', 'own': 'head.fc'}, 'through': 'neck'}}
        with pytest.raises(ValueError, match=r"'own' \(Own\) sends nothing through"):
            distill(student, losses, teachers=OWN)
