"""Configured losses: taps, shapes, schedules, several teachers, learnable parts, mistakes."""

import copy
from typing import ClassVar

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin import distill
from mmkd_plugin.losses import DistillLoss
from tests.conftest import DKD, KD, batch, build, student_cfg, trained_like


@MODELS.register_module()
class HintLoss(DistillLoss):
    """A test loss with a learnable connector, as the feature losses will be."""

    def build_connectors(self, student, teacher):
        self.regressor = nn.Conv2d(student[1], teacher[1], 1)

    def forward(self, student, teacher):
        return self.loss_weight * nn.functional.mse_loss(self.regressor(student), teacher)


@MODELS.register_module()
class LayersLoss(DistillLoss):
    """A test loss that relates several layers and asks for everything."""

    relates_layers: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ('labels', 'sample_idx', 'epoch')

    def forward(self, student, teacher, labels, sample_idx, epoch):
        self.seen = (len(student), len(teacher), labels.tolist(), sample_idx.tolist(), epoch)
        return self.loss_weight * sum(s.mean() for s in student)


HINT = {'loss_hint': {'type': 'HintLoss', 'on': 'backbone.layer2'}}


def wide_teacher():
    cfg = student_cfg()
    cfg['backbone'] = {**cfg['backbone'], 'base_channels': 8}
    cfg['head'] = {**cfg['head'], 'in_channels': 64}
    return trained_like(build(cfg, seed=5))


def set_progress(epoch, iteration=0):
    hub = MessageHub.get_current_instance()
    hub.update_info('epoch', epoch)
    hub.update_info('iter', iteration)


class TestLearnableParts:
    def test_built_from_the_dry_run_before_the_optimizer(self, student):
        model = distill(student, HINT, teacher=wide_teacher())
        assert dict(model.named_parameters())['distill.losses.loss_hint.0.regressor.weight'].shape == (16, 8, 1, 1)

    def test_trained_and_absent_from_the_plain_student(self, student, tmp_path):
        from mmengine.optim import OptimWrapper
        from mmengine.runner import load_checkpoint

        model = distill(student, HINT, teacher=wide_teacher())
        weight = model.distill.losses['loss_hint'][0].regressor.weight
        before = weight.detach().clone()
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        data = batch()
        total, _ = model.parse_losses(model(**data, mode='loss'))
        wrapper.update_params(total)
        assert not torch.equal(before, weight)
        torch.save({'state_dict': model.state_dict()}, tmp_path / 'a.pth')
        plain = build(student_cfg(), seed=9)
        load_checkpoint(plain, str(tmp_path / 'a.pth'))  # mmengine's own, not strict
        assert torch.equal(plain.head.fc.weight, model.head.fc.weight)
        extra = set(model.state_dict()) - set(plain.state_dict())
        assert extra == {f'distill.losses.loss_hint.0.regressor.{n}' for n in ('weight', 'bias')}

    def test_one_connector_for_each_layer(self, student):
        losses = {'loss_hint': {'type': 'HintLoss', 'on': ['backbone.layer1', 'backbone.layer3']}}
        model = distill(student, losses, teacher=wide_teacher())
        shapes = [m.regressor.weight.shape[:2] for m in model.distill.losses['loss_hint']]
        assert shapes == [(8, 4), (32, 16)]
        value = model(**batch(), mode='loss')['loss_hint']
        assert value.ndim == 0

    def test_two_copies_do_not_share_them(self, student):
        model = distill(student, HINT, teacher=wide_teacher())
        twin = copy.deepcopy(model)
        assert twin.distill.losses['loss_hint'][0].regressor is not model.distill.losses['loss_hint'][0].regressor


class TestSchedules:
    def losses(self, model, epoch, iteration=0):
        set_progress(epoch, iteration)
        return {k: float(v) for k, v in model(**batch(), mode='loss').items()}

    def test_interval_and_warmup(self, student, teacher):
        student.backbone.eval()
        model = distill(student, {'loss_kd': {**KD['loss_kd'], 'schedule': {'begin': 1, 'end': 4, 'warmup': 2}}},
                        teacher=teacher).eval()  # fmt: skip
        values = [self.losses(model, e).get('loss_kd') for e in range(5)]
        assert values[0] is None
        assert values[4] is None
        assert values[1] == pytest.approx(values[2] / 2)
        assert values[2] == values[3] > 0

    def test_teacher_rests_while_nobody_reads_it(self, student, teacher):
        model = distill(student, {'loss_kd': {**KD['loss_kd'], 'schedule': {'begin': 1}}}, teacher=teacher)
        model.distill.prepare(model, batch()['inputs'])
        calls = []
        model.distill.teachers['teacher'].model.register_forward_pre_hook(lambda *_: calls.append(1))
        self.losses(model, 0)
        assert calls == []
        self.losses(model, 1)
        assert calls == [1]

    def test_task_loss_has_weight_and_schedule(self, student, teacher):
        plain = float(copy.deepcopy(student).eval()(**batch(), mode='loss')['loss'])
        task = {'loss_weight': 0.5, 'schedule': {'begin': 1}}
        model = distill(student, KD, teacher=teacher, task_loss=task).eval()
        assert self.losses(model, 0)['loss'] == 0
        assert self.losses(model, 1)['loss'] == pytest.approx(plain / 2)

    def test_by_iteration(self, student, teacher):
        schedule = {'begin': 3, 'by_epoch': False}
        model = distill(student, {'loss_kd': {**KD['loss_kd'], 'schedule': schedule}}, teacher=teacher)
        assert 'loss_kd' not in self.losses(model, 0, 2)
        assert 'loss_kd' in self.losses(model, 0, 3)

    def test_without_a_runner_it_says_what_to_do(self, student, teacher):
        model = distill(student, {'loss_kd': {**KD['loss_kd'], 'schedule': {'warmup': 2}}}, teacher=teacher)
        with pytest.raises(RuntimeError, match='update_info'):
            model(**batch(), mode='loss')

    def test_unknown_key(self, student, teacher):
        with pytest.raises(ValueError, match=r"schedule of 'loss_kd'.*'warm_up' \(did you mean warmup"):
            distill(student, {'loss_kd': {**KD['loss_kd'], 'schedule': {'warm_up': 2}}}, teacher=teacher)
        with pytest.raises(ValueError, match='task_loss has'):
            distill(student, KD, teacher=teacher, task_loss={'weight': 1})


class TestSeveral:
    def test_losses_and_teachers(self, student, teacher):
        losses = {
            'loss_kd': {**KD['loss_kd'], 'teacher': 'small'},
            'loss_dkd': {**DKD['loss_dkd'], 'teacher': 'big'},
            'loss_hint': {**HINT['loss_hint'], 'teacher': 'big'},
        }
        model = distill(student, losses, teachers={'small': teacher, 'big': wide_teacher()}).eval()
        values = model(**batch(), mode='loss')
        assert set(values) == {'loss', 'loss_kd', 'loss_dkd', 'loss_hint'}
        alone = distill(copy.deepcopy(build(student_cfg())), KD, teacher=copy.deepcopy(teacher)).eval()
        torch.testing.assert_close(values['loss_kd'], alone(**batch(), mode='loss')['loss_kd'])

    def test_one_pass_of_a_teacher_serves_all_its_losses(self, student, teacher):
        model = distill(student, {**KD, **DKD, **HINT}, teacher=teacher)
        model.distill.prepare(model, batch()['inputs'])
        calls = []
        model.distill.teachers['teacher'].model.register_forward_pre_hook(lambda *_: calls.append(1))
        model(**batch(), mode='loss')
        assert calls == [1]

    def test_teacher_must_be_named(self, student, teacher):
        with pytest.raises(ValueError, match=r"names teacher=None, expected one of \['a', 'b'\]"):
            distill(student, KD, teachers={'a': teacher, 'b': wide_teacher()})

    def test_relational_loss_gets_lists_and_what_it_needs(self, student, teacher):
        losses = {'loss_l': {'type': 'LayersLoss', 'on': ['backbone.layer1', 'backbone.layer2']}}
        model = distill(student, losses, teacher=teacher)
        set_progress(3)
        model(**batch(), mode='loss')
        assert model.distill.losses['loss_l'][0].seen == (2, 2, [0, 1, 2, 3], [0, 1, 2, 3], 3)


class TestMistakes:
    @pytest.mark.parametrize(
        ('losses', 'match'),
        [
            ({'kd': KD['loss_kd']}, r"identifier that contains 'loss', and more \(such as 'loss_kd'\)"),
            ({'loss_kd': {'type': 'KDLoss'}}, 'at least `type` and `on`'),
            ({'loss_kd': {**KD['loss_kd'], 'on': 'head.fx'}}, r"student.*no module 'head.fx'. Near names: head.fc"),
            ({'loss_kd': {**KD['loss_kd'], 'on': {'student': 'head.fc', 'teacher': 'head.f'}}},
             r"teacher \(ImageClassifier\) has no module 'head.f'"),
            ({'loss_kd': {**KD['loss_kd'], 'on': 'backbone.layer2'}},
             r"\(KDLoss\) compares class scores, and 'backbone.layer2' of the student lies before the classifier"),
            ({'loss_hint': {**HINT['loss_hint'], 'on': 'head.fc'}},
             r"HintLoss\) cannot work on student 'head.fc' \(2, 10\), teacher 'head.fc' \(2, 10\)"),
            ({'loss_kd': {**KD['loss_kd'], 'schedule': {'begin': 2, 'end': 1}}}, 'end > begin'),
        ],
    )  # fmt: skip
    def test_told_at_build(self, student, teacher, losses, match):
        with pytest.raises(ValueError, match=match):
            distill(student, losses, teacher=teacher)

    @pytest.mark.parametrize(
        ('change', 'match'),
        [
            ({'losses': [KD['loss_kd']]}, r'losses=\[.* given, expected dict\(loss_kd='),
            ({'losses': {}}, r'losses=\{\} given'),
            (
                {'losses': {'loss_kd': {**KD['loss_kd'], 'schedule': 20}}},
                "schedule of 'loss_kd'=20 given, expected a dict",
            ),
            (
                {'losses': {'loss_kd': {**KD['loss_kd'], 'schedule': {'begin': '5'}}}},
                "'loss_kd': schedule: begin='5' given",
            ),
            ({'losses': {'loss_kd': {**KD['loss_kd'], 'on': {'student': 3, 'teacher': 'a'}}}}, 'has on='),
            ({'losses': {'loss_kd': {**KD['loss_kd'], 'temperature': '4'}}}, r"\['loss_kd'\]: temperature='4' given"),
            (
                {'losses': {'loss_kd': {'type': 'KDLoss', 'on': 'head.fc', 'temprature': 3}}},
                r'temprature.*temperature: ',
            ),
            ({'losses': {'loss_kd': {'type': 'KDLos', 'on': 'head.fc'}}}, 'not registered; did you mean KDLoss'),
            ({'losses': {'loss_kd': {'type': 'CrossEntropyLoss', 'on': 'head.fc'}}}, 'no DistillLoss'),
            ({'task_loss': 0.5}, r'task_loss=0\.5 given, expected a dict'),
            ({'input_shape': 32}, r'input_shape=32 given, expected \(channels'),
            ({'teacher': None, 'teachers': ['a']}, r'teachers=dict\(name=\.\.\.\)'),
        ],
    )
    def test_of_the_wrong_kind(self, student, teacher, change, match):
        with pytest.raises(ValueError, match=match):
            distill(student, **{'losses': KD, 'teacher': teacher, **change})

    def test_teacher_that_nobody_reads(self, student, teacher):
        losses = {'loss_kd': {**KD['loss_kd'], 'teacher': 'a'}}
        with pytest.raises(ValueError, match=r"no loss reads the teachers \['b'\]"):
            distill(student, losses, teachers={'a': teacher, 'b': wide_teacher()})

    def test_one_dead_layer_of_several(self, student, teacher):
        for part in (student.backbone.conv1, student.backbone.bn1, student.backbone.layer1):
            part.requires_grad_(False)
        losses = {'loss_hint': {'type': 'HintLoss', 'on': ['backbone.layer1', 'backbone.layer2']}}
        with pytest.raises(RuntimeError, match=r"reads \['backbone.layer1'\]"):
            distill(student, losses, teacher=teacher)(**batch(), mode='loss')

    def test_a_value_without_gradient(self, student, teacher):
        class Detached(DistillLoss):
            def forward(self, student, teacher):
                return (student.detach() - teacher).square().mean()

        model = distill(student, {'loss_d': {'type': Detached, 'on': 'head.fc'}}, teacher=teacher)
        with pytest.raises(RuntimeError, match=r"losses\['loss_d'\] \(Detached\) gives a value without gradient"):
            model(**batch(), mode='loss')

    def test_a_module_that_does_not_run(self, student, teacher):
        with pytest.raises(ValueError, match=r'head.loss_module of the student .* did not run in a pass on images'):
            distill(student, {'loss_hint': {'type': 'HintLoss', 'on': 'head.loss_module'}}, teacher=teacher)

    def test_schedule_that_the_run_is_too_short_for(self, student, teacher, monkeypatch):
        import mmkd_plugin.distillation.schedule as module

        said: list[str] = []
        monkeypatch.setattr(module, 'print_log', lambda text, *_: said.append(text))
        MessageHub.get_current_instance().update_info('max_epochs', 4)
        set_progress(0)
        cfg = {'loss_kd': {**KD['loss_kd'], 'schedule': {'warmup': 20}}}
        distill(copy.deepcopy(student), cfg, teacher=copy.deepcopy(teacher))(**batch(), mode='loss')
        assert 'warms up over 20 epochs, and this run has 4' in said[0]
        cfg = {'loss_kd': {**KD['loss_kd'], 'schedule': {'begin': 4}}}
        with pytest.raises(ValueError, match=r'begins at epoch 4 \(from 0\), and this run has 4'):
            distill(student, cfg, teacher=teacher)(**batch(), mode='loss')

    def test_the_epoch_is_needed_and_nobody_says_it(self, student, teacher):
        losses = {'loss_l': {'type': 'LayersLoss', 'on': ['backbone.layer1', 'backbone.layer2']}}
        with pytest.raises(RuntimeError, match='the loss_l loss needs the epoch, and nobody says which'):
            distill(student, losses, teacher=teacher)(**batch(), mode='loss')

    def test_different_class_counts(self, student):
        cfg = student_cfg()
        cfg['head'] = {**cfg['head'], 'num_classes': 7}
        with pytest.raises(ValueError, match=r"\['loss_kd'\].*'head.fc' \(2, 10\), teacher 'head.fc' \(2, 7\)"):
            distill(student, KD, teacher=build(cfg))

    def test_labels_missing_in_the_batch(self, student, teacher):
        from mmpretrain.structures import DataSample

        model = distill(student, DKD, teacher=teacher)
        data = batch()
        data['data_samples'] = [DataSample().set_gt_label(0).set_gt_score(torch.ones(10) / 10) for _ in range(4)]
        with pytest.raises(TypeError, match='soft ones'):
            model(**data, mode='loss')

    def test_name_of_the_students_own_loss(self, student, teacher):
        with pytest.raises(ValueError, match="'loss' is the student's own"):
            distill(student, {'loss': KD['loss_kd']}, teacher=teacher)

    def test_frozen_student_layer_would_teach_nothing(self, student, teacher):
        student.backbone.requires_grad_(False)
        losses = {'loss_hint': {**HINT['loss_hint'], 'on': 'backbone.layer1'}}
        model = distill(student, losses, teacher=teacher)
        with pytest.raises(
            RuntimeError, match=r"reads \['backbone.layer1'\] of the student, which carries no gradient"
        ):
            model(**batch(), mode='loss')

    def test_non_finite_loss_is_named_before_any_update(self, student, teacher):
        model = distill(student, {**KD, **HINT}, teacher=teacher)
        model.distill.losses['loss_hint'][0].regressor.weight.data.fill_(3e38)
        with pytest.raises(FloatingPointError, match=r"not finite: \{'loss_hint': (nan|inf)\}.*'loss_kd'"):
            model(**batch(), mode='loss')

    def test_loss_that_needs_what_nobody_gives(self, student, teacher):
        class Odd(DistillLoss):
            needs: ClassVar[tuple[str, ...]] = ('weather',)

        with pytest.raises(ValueError, match="Odd needs 'weather'; known: labels, sample_idx, epoch"):
            distill(student, {'loss_odd': {'type': Odd, 'on': 'head.fc'}}, teacher=teacher)


def test_preactivation_tap_is_read_before_the_inplace_relu(student, teacher):
    trained_like(student)  # fresh residual branches are zero, and their sums never negative
    on = 'backbone.layer2.1.relu:input'
    seen = {}

    class Keep(DistillLoss):
        def forward(self, student, teacher):
            seen['student'], seen['teacher'] = student, teacher
            return nn.functional.mse_loss(student, teacher)

    model = distill(student, {'loss_pre': {'type': Keep, 'on': on}}, teacher=teacher)
    model(**batch(), mode='loss')['loss_pre'].backward()
    assert seen['student'].min() < 0
    assert seen['teacher'].min() < 0
    assert student.backbone.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_under_autocast_losses_are_float32(student, teacher, dtype):
    model = distill(student, {**KD, **DKD}, teacher=teacher)
    with torch.autocast('cpu', dtype):
        losses = model(**batch(), mode='loss')
    assert losses['loss_kd'].dtype == losses['loss_dkd'].dtype == torch.float32
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
