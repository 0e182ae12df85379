"""A student that starts from an older network: what is copied, what is new, and the new rows alone."""

import copy
from typing import Any

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS

from mmkd_plugin import Distilled, distill
from mmkd_plugin.facts import TrainingData
from mmkd_plugin.losses import DistillLoss, lwf_loss
from tests.conftest import batch, build, student_cfg, trained_like
from tests.distillation.test_step import set_progress
from tests.distillation.test_untouched import OPTIMIZERS, WRAPPERS, run

OLD = 6
LWF = {'loss_lwf': {'type': 'LwFLoss', 'on': 'head.fc', 'form': 'kl'}}
HEAD = {'head.fc.weight', 'head.fc.bias'}


def of_classes(number, seed=0):
    cfg = student_cfg()
    cfg['head']['num_classes'] = number
    return build(cfg, seed)


def older(number=OLD):
    return trained_like(of_classes(number, 7))


def student_of(losses=LWF, teacher=None, start: Any = 'teacher', seed=0, **kwargs):
    """Distilled and initialised, as the Runner does it."""
    model = distill(build(student_cfg(), seed), losses, teacher=older() if teacher is None else teacher, start=start,
                    **kwargs)  # fmt: skip
    torch.manual_seed(seed)
    model.init_weights()
    return model


def own_state(model):
    return {name: value.clone() for name, value in model.state_dict().items() if not name.startswith('distill.')}


@MODELS.register_module()
class NewLogitsLoss(DistillLoss):
    """A test loss of the new columns."""

    sides = ('student',)

    def forward(self, student):
        return self.loss_weight * student[:, OLD:].square().mean()


class Classes:
    """A data set as far as it is asked."""

    def __init__(self, classes):
        self.metainfo = {'classes': tuple(classes)}


class TestStart:
    def test_everything_is_the_teachers_but_the_new_rows(self):
        plain = build(student_cfg())
        plain._is_init = False
        torch.manual_seed(0)
        plain.init_weights()
        teacher = older()
        before = copy.deepcopy(teacher.state_dict())
        state = own_state(student_of(teacher=teacher))
        assert state.keys() == before.keys()
        for name, value in state.items():
            assert torch.equal(value[:OLD] if name in HEAD else value, before[name]), name
            if name in HEAD:
                assert torch.equal(value[OLD:], plain.state_dict()[name][OLD:])
        torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)

    def test_the_same_number_of_classes_is_a_copy(self):
        teacher = older(10)
        state = own_state(student_of({}, teacher))
        torch.testing.assert_close(state, dict(teacher.state_dict()), rtol=0, atol=0)

    def test_it_follows_the_older_network_no_more_than_once(self):
        model = student_of()
        optimizer = run(model, OPTIMIZERS[0], {}, 2)
        after = own_state(model)
        set_progress(1)
        model(**batch(), mode='loss')
        model.init_weights()  # mmengine says that this was done
        assert torch.equal(own_state(model)['head.fc.weight'], after['head.fc.weight'])
        assert optimizer.state

    def test_in_a_loop_that_never_initialises(self):
        teacher = older()
        model = distill(build(student_cfg()), LWF, teacher=teacher, start='teacher')
        set_progress(0)
        model(**batch(), mode='loss')
        assert torch.equal(model.head.fc.weight[:OLD], teacher.head.fc.weight)
        model = distill(build(student_cfg()), LWF, teacher=older(), start='teacher')
        given = own_state(build(student_cfg(), 3))
        model.load_state_dict(given, strict=False)  # as one that goes on does
        model(**batch(), mode='loss')
        assert torch.equal(model.head.fc.weight, given['head.fc.weight'])

    def test_without_losses_it_is_fine_tuning(self):
        model = student_of({})
        plain = build(student_cfg())
        plain.load_state_dict(own_state(model))
        run(model, OPTIMIZERS[0], {})
        run(plain, OPTIMIZERS[0], {})
        torch.testing.assert_close(own_state(model), dict(plain.state_dict()), rtol=0, atol=0)

    def test_from_a_config(self):
        cfg = student_cfg()
        cfg['student'] = cfg.pop('type')
        model = Distilled(**cfg, teacher=older(), start={'teacher': 'teacher', 'alone': 2})
        assert model.distill.start.alone == 2
        assert not model.distill.terms


class TestBeforeTheFirstUpdate:
    def test_nothing_pulls_at_the_old_classes(self):
        """In evaluation mode, in which the older network is."""
        model = student_of().eval()
        set_progress(0)
        value = model(**batch(), mode='loss')['loss_lwf']
        assert value.abs() < 1e-6
        slopes = torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
        assert max(slope.abs().max() for slope in slopes if slope is not None) < 1e-6

    def test_and_something_does_after_it(self):
        model = student_of()
        run(model, OPTIMIZERS[0], {}, 2)
        model.eval()
        data = batch()
        with torch.no_grad():
            old = model.distill.sources['teacher'].model(data['inputs'])
            value = model(**data, mode='loss')['loss_lwf']
            new = model(data['inputs'])
        assert value > 1e-3
        torch.testing.assert_close(value, lwf_loss(new, old, form='kl'), rtol=1e-4, atol=1e-6)


ALONE = {'teacher': 'teacher', 'alone': 2}


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=['sgd', 'adamw'])
@pytest.mark.parametrize('wrapper', WRAPPERS, ids=['plain', 'clip', 'accumulate'])
class TestAlone:
    """Two epochs of two steps each."""

    def test_only_the_new_rows_move(self, optimizer, wrapper):
        model = student_of(start=ALONE)
        before = own_state(model)
        used = run(model, optimizer, wrapper)
        after = own_state(model)
        for name, value in after.items():
            if name in HEAD:
                assert torch.equal(value[:OLD], before[name][:OLD]), name
                assert (value[OLD:] != before[name][OLD:]).any(), name
            else:
                assert torch.equal(value, before[name]), name
        names = {name for name, p in model.named_parameters() if p in used.state}
        assert names == HEAD
        for name in HEAD:
            states = [s for s in used.state[model.get_parameter(name)].values() if torch.is_tensor(s) and s.ndim]
            assert states
            for state in states:
                assert not state[:OLD].any()
                assert state[OLD:].any()

    def test_then_all_of_it_does(self, optimizer, wrapper):
        model = student_of(start=ALONE)
        used = run(model, optimizer, wrapper)
        before = own_state(model)
        run(model, used, wrapper, first=4)
        after = own_state(model)
        assert [name for name in after if torch.equal(after[name], before[name])] == []
        assert (after['head.fc.weight'][:OLD] != before['head.fc.weight'][:OLD]).any()
        assert all(p in used.state for p in model.parameters() if p.requires_grad)

    def test_the_new_rows_move_as_if_they_were_all_that_is_there(self, optimizer, wrapper):
        """Clipping sees no other gradients: as a head of its own beside constants."""
        model = student_of({}, start=ALONE)
        weights = {
            name: model.get_parameter(name)[OLD:].detach().clone() for name in ('head.fc.weight', 'head.fc.bias')
        }
        other = copy.deepcopy(model)
        run(model, optimizer, wrapper)

        new = torch.nn.ParameterDict({key.split('.')[-1]: torch.nn.Parameter(value) for key, value in weights.items()})
        for parameter in other.parameters():
            parameter.requires_grad_(False)
        old_weight, old_bias = other.head.fc.weight[:OLD], other.head.fc.bias[:OLD]

        class Head(torch.nn.Module):
            def forward(self, x):
                weight, bias = torch.cat([old_weight, new['weight']]), torch.cat([old_bias, new['bias']])
                return torch.nn.functional.linear(x, weight, bias)

        other.head.fc = Head()
        other.head.fc.new = new
        other.distill.start = None
        run(other, (optimizer[0], optimizer[1]), wrapper)
        torch.testing.assert_close(model.head.fc.weight[OLD:], new['weight'], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.head.fc.bias[OLD:], new['bias'], rtol=1e-5, atol=1e-6)


class TestAloneInSpecial:
    def test_nothing_below_the_classifier_is_differentiated(self):
        model = student_of(start=ALONE)
        set_progress(0)
        model.parse_losses(model(**batch(), mode='loss'))[0].backward()
        assert {name for name, p in model.named_parameters() if p.grad is not None} == HEAD
        assert all(p.requires_grad for p in model.parameters())
        assert not model.head.fc.weight.grad[:OLD].any()
        assert model.head.fc.weight.grad[OLD:].any()

    def test_parameters_that_the_config_froze_stay_frozen(self):
        model = student_of(start=ALONE)
        model.backbone.layer1.requires_grad_(False)
        set_progress(0)
        model(**batch(), mode='loss')
        assert not any(p.requires_grad for p in model.backbone.layer1.parameters())
        assert all(p.requires_grad for p in model.backbone.layer2.parameters())

    def test_a_failed_pass_leaves_nothing_behind(self):
        model = student_of(start=ALONE)
        set_progress(0)
        before = own_state(model)
        with pytest.raises(RuntimeError, match='channels'):
            model(torch.zeros(2, 3, 28, 28), batch(2)['data_samples'], mode='loss')
        assert all(p.requires_grad for p in model.parameters())
        torch.testing.assert_close(own_state(model), before, rtol=0, atol=0)

    def test_learnable_parts_of_losses_train_beside_the_new_rows(self):
        hint = {'type': 'FitNetLoss', 'on': 'backbone.layer2', 'loss_weight': 1.0, 'schedule': {'begin': 2}}
        model = student_of({**LWF, 'loss_hint': hint}, start=ALONE)
        run(model, OPTIMIZERS[0], {})
        before = copy.deepcopy(model.distill.state_dict())
        run(model, OPTIMIZERS[0], {}, first=4)
        assert not torch.equal(before['losses.loss_hint.0.regressor.0.weight'],
                               model.distill.state_dict()['losses.loss_hint.0.regressor.0.weight'])  # fmt: skip

    def test_a_loss_that_reads_what_waits_is_told(self):
        hint = {'type': 'FitNetLoss', 'on': 'backbone.layer2', 'loss_weight': 1.0}
        model = student_of({**LWF, 'loss_hint': hint}, start=ALONE)
        set_progress(0)
        with pytest.raises(RuntimeError, match=r'carries no gradient while its new rows train alone.*begin=2'):
            model(**batch(), mode='loss')

    def test_an_update_that_accumulated_over_the_end_counts_for_all(self):
        model = student_of(start={'teacher': 'teacher', 'alone': 1})
        before = own_state(model)
        MessageHub.get_current_instance()
        run(model, OPTIMIZERS[0], {'accumulative_counts': 4}, 4)
        after = own_state(model)
        assert (after['head.fc.weight'][:OLD] != before['head.fc.weight'][:OLD]).any()
        assert not torch.equal(after['backbone.layer1.0.conv1.weight'], before['backbone.layer1.0.conv1.weight'])

    def test_the_task_loss_may_begin_later(self):
        """What trains is then read off the graph."""
        model = student_of({'loss_new': {'type': 'NewLogitsLoss', 'on': 'head.fc'}, **LWF}, start=ALONE,
                           task_loss={'schedule': {'begin': 2}})  # fmt: skip
        before = own_state(model)
        run(model, OPTIMIZERS[1], {})
        after = own_state(model)
        assert {name for name in after if not torch.equal(after[name], before[name])} == HEAD
        assert torch.equal(after['head.fc.weight'][:OLD], before['head.fc.weight'][:OLD])

    def test_other_optimizers_are_left_alone(self):
        model = student_of(start=ALONE)
        run(model, OPTIMIZERS[0], {}, 2)
        foreign = torch.nn.Linear(2, 2)
        weight = foreign.weight.clone()
        foreign(torch.ones(1, 2)).sum().backward()
        torch.optim.SGD(foreign.parameters(), lr=0.1).step()
        assert (foreign.weight != weight).all()

    def test_a_copy_trains_on_its_own(self):
        model = student_of(start=ALONE)
        run(model, OPTIMIZERS[0], {}, 2)
        other = copy.deepcopy(model)
        for one in (model, other):
            before = own_state(one)
            run(one, OPTIMIZERS[0], {}, 2, first=2)
            after = own_state(one)
            assert torch.equal(after['head.fc.weight'][:OLD], before['head.fc.weight'][:OLD])
            assert (after['head.fc.weight'][OLD:] != before['head.fc.weight'][OLD:]).any()


class TestClasses:
    """Those of the older network are the first ones of the data."""

    def prepared(self, taught, there, losses=LWF, start: Any = 'teacher'):
        model = distill(build(student_cfg()), losses, teacher=older(), start=start)
        model.distill.teachers['teacher']._spec.classes = None if taught is None else tuple(taught)
        model.distill.data = TrainingData(None if there is None else Classes(there))
        model.init_weights()
        return model

    @pytest.mark.parametrize(
        ('taught', 'there', 'told'),
        [
            ('012345', '0123546789', "class 4 is '5' here, and '4' there"),
            ('abcdef', '0123456789', "class 0 is '0' here, and 'a' there"),
            ('012345', '0123', "it has no class 4, and '4' there"),
            ('012345', '6789', "class 0 is '6' here, and '0' there"),
        ],
    )
    @pytest.mark.parametrize(('losses', 'start'), [({}, 'teacher'), (LWF, None)], ids=['start', 'loss'])
    def test_others_are_refused(self, taught, there, told, losses, start):
        with pytest.raises(ValueError, match=f'teacher was trained on the classes.*{told}'):
            self.prepared(taught, there, losses, start)

    def test_the_first_ones_are_right(self):
        self.prepared('012345', '0123456789')

    @pytest.mark.parametrize(('taught', 'there'), [(None, '0123456789'), ('012345', None)])
    def test_what_nobody_knows_is_told(self, taught, there, monkeypatch):
        said: list[str] = []
        monkeypatch.setattr('mmkd_plugin.facts.before_training.print_log', lambda text, *_: said.append(text))
        self.prepared(taught, there)
        assert said
        assert all('nobody knows whether those of teacher are the first ones' in text for text in said)


class TestMistakes:
    @pytest.mark.parametrize(
        'start', ['other', 3, {'alone': 2}, {'teacher': 'teacher', 'epochs': 2}, {'teacher': 'other'}, True, []]
    )
    def test_no_such_teacher_or_key(self, start):
        with pytest.raises(ValueError, match=r'start=.*expected'):
            student_of(start=start)

    @pytest.mark.parametrize('alone', [-1, 1.5, True, 'two', None])
    def test_alone_is_a_whole_number(self, alone):
        with pytest.raises(ValueError, match=f'start: alone={alone!r} given'):
            student_of(start={'teacher': 'teacher', 'alone': alone})

    def test_a_source_without_weights(self):
        with pytest.raises(ValueError, match=r"start='own' given.*where the teacher is one of \[\]"):
            distill(build(student_cfg()), {'loss_x': {'type': 'FitNetLoss', 'on': {
                'student': 'backbone.layer1', 'own': 'backbone.layer2'}, 'loss_weight': 1.0}},
                teachers={'own': {'type': 'Own'}}, start='own')  # fmt: skip

    def test_nothing_is_new(self):
        with pytest.raises(ValueError, match=r'alone=2 given, and nothing is new'):
            student_of({}, older(10), ALONE)

    def test_fewer_classes(self):
        with pytest.raises(ValueError, match='start from teacher: the student tells 10 classes apart and teacher 12'):
            student_of({}, older(12))

    def test_another_architecture(self):
        cfg = student_cfg()
        cfg['backbone']['base_channels'] = 8
        cfg['head'].update(in_channels=64, num_classes=OLD)
        with pytest.raises(ValueError, match=r'(?s)only the classifier may grow:.*of another shape: backbone'):
            student_of({}, build(cfg))
        cfg = student_cfg()
        cfg['backbone']['depth'] = 34
        with pytest.raises(ValueError, match=r'unexpected \(in the file, not in the model\): backbone'):
            student_of({}, build(cfg))

    def test_weights_that_may_be_missing(self):
        cfg = student_cfg()
        teacher = {'model': cfg, 'checkpoint': 'x.pth', 'allow_missing': ['head.']}
        with pytest.raises(ValueError, match='start from teacher: it has allow_missing'):
            distill(build(student_cfg()), {}, teacher=teacher, start='teacher')

    def test_another_normalisation(self):
        cfg = student_cfg()
        cfg['data_preprocessor'] = {**cfg['data_preprocessor'], 'mean': [0.0], 'std': [1.0]}
        with pytest.raises(ValueError, match='normalises images in another way'):
            distill(build(student_cfg()), {}, teacher=build(cfg), start='teacher')

    def test_as_long_as_the_run(self):
        model = student_of(start=ALONE)
        set_progress(0)
        MessageHub.get_current_instance().update_info('max_epochs', 2)
        with pytest.raises(ValueError, match=r'start has alone=2, .*this run has 2'):
            model(**batch(), mode='loss')

    def test_nobody_says_which_epoch_it_is(self):
        with pytest.raises(RuntimeError, match='start has alone=2, and nobody says which epoch'):
            student_of(start=ALONE)(**batch(), mode='loss')

    def test_an_unread_teacher_without_start(self):
        with pytest.raises(ValueError, match=r"no loss reads the teachers \['b'\]"):
            distill(build(student_cfg()), {'loss_lwf': {**LWF['loss_lwf'], 'teacher': 'a'}},
                    teachers={'a': older(), 'b': older()}, start='a')  # fmt: skip
