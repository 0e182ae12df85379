"""The bound of distillation's gradient: by hand, against two backward passes, and with all that a wrapper does."""

import copy
import math
import types
from typing import Any

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from torch import nn
from torch.amp.grad_scaler import GradScaler

from mmkd_plugin import distill
from mmkd_plugin.optim import AmpBoundedOptimWrapper, BoundedOptimWrapper, without_bound
from tests.conftest import KD, batch, build, student_cfg
from tests.distillation.test_step import set_progress
from tests.distillation.test_untouched import HINT, LATER, OPTIMIZERS, run, states_of, student_of
from tests.end_to_end.helpers import ROOT, digits_cfg, runner_of, together

LOSSES = {'loss_kd': {**KD['loss_kd'], 'loss_weight': 30.0}, **HINT}


class Part:
    """What a distilled model would tell of its total: everything is given."""

    def __init__(self, value, learnable=()):
        self.given, self.parameters = value, learnable

    def value(self):
        return self.given

    def learnable(self):
        return list(self.parameters)

    def without_task(self):
        return []

    def counts_epochs(self):
        return True


def total_of(task, distilled, learnable=()):
    total = task + distilled
    total.distilled_part = Part(distilled, learnable)
    return total


class Lines:
    """A parameter that losses are linear in, so that their slopes are what is given; SGD of rate 1 from 0."""

    def __init__(self, kind=BoundedOptimWrapper, **kwargs):
        self.weight, self.connector = (nn.Parameter(torch.zeros(2)) for _ in range(2))
        self.wrapper = kind(optimizer=torch.optim.SGD([self.weight, self.connector], lr=1.0), **kwargs)
        self.scaler: Any = getattr(self.wrapper, 'loss_scaler', None)

    def update(self, task, distilled, connector=(0.0, 0.0)):
        task, distilled = self.weight @ torch.tensor(task), self.weight @ torch.tensor(distilled)
        distilled = distilled + self.connector @ torch.tensor(connector)
        self.wrapper.update_params(total_of(task, distilled, [self.connector]))
        return self

    def moved(self):
        return [-x for x in self.weight.tolist()]


TASK, LONG, SHORT = (3.0, 4.0), (0.0, 10.0), (0.0, -2.0)


@pytest.mark.parametrize(
    ('epoch', 'bound', 'distilled', 'expected'),
    [
        (0, 'sigmoid', LONG, (3, 4 + 5 / 2)),  # ‖g_task‖ = 5
        (1, 'sigmoid', LONG, (3, 4 + 5 / (1 + math.exp(-1)))),
        (50, 'sigmoid', LONG, (3, 9)),
        (0, 1.0, LONG, (3, 9)),
        (0, 0.1, LONG, (3, 4.5)),
        (0, 1.9, LONG, (3, 13.5)),
        (0, 1e30, LONG, (3, 14)),
        (0, 'sigmoid', SHORT, (3, 2)),  # below the bound of 2.5: as it is
        (0, 'sigmoid', (0.0, 0.0), (3, 4)),
    ],
)
def test_by_hand(epoch, bound, distilled, expected):
    set_progress(epoch)
    assert Lines(bound=bound).update(TASK, distilled).moved() == pytest.approx(expected)


def test_the_sigmoid_begins_where_it_is_told():
    for epoch, factor in ((7, 0.5), (8, 1 / (1 + math.exp(-1))), (6, 1 / (1 + math.exp(1))), (2000, 1)):
        set_progress(epoch)
        assert Lines(begin=7).update(TASK, LONG).moved() == pytest.approx((3, 4 + 5 * factor))
    set_progress(0)
    assert Lines(begin=2000).update(TASK, LONG).moved() == pytest.approx(TASK)


def test_no_task_gradient_is_a_bound_of_zero_except_for_what_belongs_to_a_loss():
    set_progress(0)
    lines = Lines().update((0.0, 0.0), LONG, connector=(7.0, 8.0))
    assert lines.moved() == [0, 0]
    assert lines.connector.tolist() == [-7, -8]


def test_norms_are_those_of_what_was_accumulated():
    set_progress(0)
    lines = Lines(accumulative_counts=2)
    lines.update((6.0, 0.0), (20.0, 0.0))
    assert lines.moved() == [0, 0]
    lines.update((0.0, 8.0), (-20.0, 20.0))  # means: (3, 4), and (0, 10)
    assert lines.moved() == pytest.approx((3, 6.5))


def test_gradients_are_clipped_as_a_sum():
    set_progress(0)
    assert Lines(clip_grad={'max_norm': 1.0}).update(TASK, LONG).moved() == pytest.approx(
        [x / math.hypot(3, 6.5) for x in (3, 6.5)], rel=1e-5
    )


def test_two_parameters_whose_gradients_are_one_tensor():
    set_progress(0)
    a, b = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    groups: list[dict[str, Any]] = [{'params': [a]}, {'params': [b], 'lr': 2.0}]
    wrapper = BoundedOptimWrapper(torch.optim.SGD(groups, lr=1.0))
    wrapper.update_params(total_of((a + b) @ torch.tensor(TASK), (a + b) @ torch.tensor(LONG)))
    torch.testing.assert_close(torch.stack([-a, -b / 2]).detach(), torch.tensor([[3, 6.5]] * 2))


def test_what_is_kept_is_logged_with_the_next_update():
    set_progress(0)
    MessageHub.get_current_instance().log_scalars.pop('train/distill_kept', None)
    lines = Lines().update(TASK, LONG)
    assert 'train/distill_kept' not in MessageHub.get_current_instance().log_scalars
    lines.update(TASK, LONG)
    history = lines.wrapper.message_hub.log_scalars.pop('train/distill_kept')
    assert history.current() == pytest.approx(0.25)


def two_passes(model, data, optim_wrapper):
    """A training step straight from the rule."""
    data = model.data_preprocessor(data, True)
    losses = model(**data, mode='loss')
    distilled = sum(value for name, value in losses.items() if name in model.distill.losses)
    task = sum(value for name, value in losses.items() if 'loss' in name and name not in model.distill.losses)
    named = dict(model.named_parameters())
    gradients = []
    for value in (task, distilled):
        model.zero_grad()
        value.backward(retain_graph=True)
        gradients.append({n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named.items()})
    epoch = MessageHub.get_current_instance().get_info('epoch')
    for name, p in named.items():
        g_task, g = (found[name] for found in gradients)
        if not name.startswith('distill.losses') and g.norm() > 0:
            g = g * min(1.0, 1 / (1 + math.exp(-epoch)) * float(g_task.norm()) / float(g.norm()))
        p.grad = g_task + g
    OptimWrapper.step(optim_wrapper)
    return {'loss': task.detach()}


def test_the_runners_loop_does_what_two_backward_passes_do(tmp_path):
    models = []
    for naive in (False, True):
        runner = runner_of(digits_cfg(tmp_path / str(naive), 2, 'digits/kdsvd_resnet.py'))
        assert isinstance(runner.build_optim_wrapper(runner.cfg.optim_wrapper), BoundedOptimWrapper)
        models.append(runner.model)
        if naive:
            runner.model.train_step = types.MethodType(two_passes, runner.model)
        runner.train()
    torch.testing.assert_close(*(m.state_dict() for m in models), rtol=1e-4, atol=1e-5)
    plain = runner_of(
        digits_cfg(tmp_path / 'plain', 2, 'digits/kdsvd_resnet.py', **{'optim_wrapper.type': 'OptimWrapper'})
    )
    plain.train()
    difference = (plain.model.head.fc.weight - models[0].head.fc.weight).abs().max()
    assert difference > 1e-3, 'the bound was felt'


def stepped(model, wrapper, steps=4):
    for step in range(steps):
        set_progress(step // 2, step)
        data = batch()
        inputs = data['inputs'] * (78.6 + step) + 33.3
        model.train_step({'inputs': inputs, 'data_samples': data['data_samples']}, wrapper)
    return model


def peers():
    peer = {'type': 'Peer', 'model': build(student_cfg(), 7)}
    losses = {'loss_kl': LOSSES['loss_kd'], 'loss_back': {**LOSSES['loss_kd'], 'learner': 'peer'}}
    return distill(build(student_cfg()), losses, teachers={'peer': peer})


@pytest.mark.parametrize('make', [lambda: student_of(LOSSES), peers], ids=['connector', 'peers'])
@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=['sgd', 'adamw'])
def test_steps_are_those_of_two_backward_passes(make, optimizer):
    bounded, naive = make(), make()
    naive.train_step = types.MethodType(two_passes, naive)
    for model in (bounded, naive):
        stepped(model, BoundedOptimWrapper(optimizer[0](model.parameters(), **optimizer[1])))
    torch.testing.assert_close(bounded.state_dict(), naive.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kwargs', [{}, {'accumulative_counts': 2}, {'clip_grad': {'max_norm': 0.5}}], ids=str)
def test_a_bound_that_nothing_reaches_is_plain_training(kwargs):
    states = []
    cases: list[tuple[Any, dict[str, Any]]] = [(BoundedOptimWrapper, {'bound': 1e30}), (OptimWrapper, {})]
    for kind, more in cases:
        model = student_of(LOSSES)
        stepped(model, kind(torch.optim.SGD(model.parameters(), lr=0.01), **copy.deepcopy(kwargs), **more))
        states.append(model.state_dict())
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=['sgd', 'adamw'])
@pytest.mark.parametrize('wrapper', [{}, {'accumulative_counts': 2}], ids=['plain', 'accumulate'])
class TestPhases:
    """What is off stays untouched, as with the plain wrapper."""

    @pytest.fixture(autouse=True)
    def _bounded(self, monkeypatch):
        monkeypatch.setattr('tests.distillation.test_untouched.OptimWrapper', BoundedOptimWrapper)

    def test_before_and_after(self, optimizer, wrapper):
        later, until = ({**HINT['loss_hint'], 'schedule': s} for s in (LATER['schedule'], {'end': 1}))
        for losses, first in (({**KD, 'loss_hint': later}, 0), ({**KD, 'loss_hint': until}, 2)):
            model = student_of(losses)
            used = run(model, optimizer, wrapper, first) if first else optimizer
            before = copy.deepcopy(model.distill.state_dict())
            states = [] if used is optimizer else states_of(model.distill, used)
            used = run(model, used, wrapper, first=first)
            torch.testing.assert_close(model.distill.state_dict(), before, rtol=0, atol=0)
            torch.testing.assert_close(states_of(model.distill, used), states, rtol=0, atol=0)

    def test_all_distillation_off_is_plain_training(self, optimizer, wrapper, monkeypatch):
        models = [student_of({'loss_kd': {**KD['loss_kd'], 'schedule': {'begin': 2}}}) for _ in range(2)]
        run(models[0], optimizer, wrapper)
        monkeypatch.undo()
        run(models[1], optimizer, wrapper)
        torch.testing.assert_close(*(m.state_dict() for m in models), rtol=0, atol=0)


@pytest.fixture
def on_a_cpu(monkeypatch):
    """mmengine refuses mixed precision there; torch's gradient scaler does not."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', lambda **kwargs: GradScaler('cpu', **kwargs))


@pytest.mark.usefixtures('on_a_cpu')
class TestScaledGradients:
    @pytest.mark.parametrize('kwargs', [{}, {'clip_grad': {'max_norm': 1.0}}, {'accumulative_counts': 2}], ids=str)
    def test_scales_cancel(self, kwargs):
        set_progress(0)
        results = []
        for kind, more in ((BoundedOptimWrapper, {}), (AmpBoundedOptimWrapper, {'loss_scale': {'init_scale': 1024.0}})):
            lines = Lines(kind, **copy.deepcopy(kwargs), **more)
            for _ in range(2):
                lines.update(TASK, LONG, connector=(7.0, 8.0))
            results.append([lines.weight.detach(), lines.connector.detach()])
        torch.testing.assert_close(*results)
        assert results[0][0].abs().max() > 0

    @pytest.mark.parametrize('which', ['task', 'distilled'])
    @pytest.mark.parametrize('value', [float('inf'), float('nan'), 3e38])
    def test_what_overflows_is_skipped(self, which, value):
        set_progress(0)
        lines = Lines(AmpBoundedOptimWrapper, loss_scale={'init_scale': 1024.0})
        lines.update(**{'task': TASK, 'distilled': LONG, which: (0.0, value)})
        assert lines.moved() == [0, 0]
        assert lines.scaler.get_scale() == 512
        assert lines.update(TASK, LONG).moved() == pytest.approx((3, 6.5))

    def test_a_distilled_model(self):
        models = []
        for kind in (BoundedOptimWrapper, AmpBoundedOptimWrapper):
            models.append(student_of(LOSSES))
            wrapper = kind(optimizer=torch.optim.SGD(models[-1].parameters(), lr=0.01))
            wrapper.optim_context = lambda model: torch.autocast('cpu', enabled=False)
            stepped(models[-1], wrapper)
        torch.testing.assert_close(*(m.state_dict() for m in models), rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_mixed_precision_on_a_gpu():
    model = student_of(LOSSES).cuda()
    wrapper = AmpBoundedOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
    before = copy.deepcopy(model.state_dict())
    stepped(model, wrapper)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert not torch.equal(before['head.fc.weight'], model.head.fc.weight)


DISTRIBUTED = """
import sys, copy, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from mmkd_plugin.optim import BoundedOptimWrapper
from tests.conftest import batch
from tests.distillation import test_untouched
from tests.distillation.test_step import set_progress
from tests.distillation.test_untouched import HINT, KD, LATER, OPTIMIZERS, run, student_of
from tests.optim.test_bounded import LOSSES
dist.init_process_group('gloo')
rank, world = dist.get_rank(), dist.get_world_size()


def updated(model, wrapped, data, kwargs, train_together):
    from mmkd_plugin.optim import bounded
    bounded.train_together = lambda: train_together
    wrapper = BoundedOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), **kwargs)
    wrapper.initialize_count_status(model, 0, 4)
    for step in range(4):
        set_progress(step // 2, step)
        inputs = data['inputs'] * (1 + 0.1 * step)
        with wrapper.optim_context(wrapped):
            losses = wrapped(inputs, data['data_samples'], mode='loss')
        wrapper.update_params(model.parse_losses(losses)[0])
    return dict(model.named_parameters())


with DefaultScope.overwrite_default_scope('mmpretrain'):
    for kwargs in ({}, {'accumulative_counts': 2}, {'accumulative_counts': 3}):
        # batch statistics differ between a half and the whole batch: take them out of the comparison
        model = student_of(LOSSES).double().eval()
        whole = copy.deepcopy(model)
        data = batch(8)
        data['inputs'] = data['inputs'].double()
        half = {key: value[rank::world] for key, value in data.items()}
        wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
        start = copy.deepcopy(dict(model.named_parameters()))
        found = updated(model, wrapped, half, kwargs, True)
        expected = updated(whole, whole, data, kwargs, False)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        assert all(not torch.equal(found[name], start[name]) for name in start)
    print('as on the joined batch', flush=True)

    from mmkd_plugin.optim import bounded
    bounded.train_together = lambda: True
    test_untouched.OptimWrapper = BoundedOptimWrapper
    for wrapper in ({}, {'accumulative_counts': 2}):
        model = student_of({**KD, 'loss_hint': {**HINT['loss_hint'], **LATER}})
        before = copy.deepcopy(model.distill.state_dict())
        wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
        used = run(wrapped, OPTIMIZERS[0], wrapper)
        torch.testing.assert_close(model.distill.state_dict(), before, rtol=0, atol=0)
        assert not any(p in used.state for p in model.distill.parameters())
        run(wrapped, used, wrapper, first=6)
        after = model.distill.state_dict()
        assert all(not torch.equal(after[key], before[key]) for key in before if 'weight' in key)
    print('off is off', flush=True)

    for wrapper in ({}, {'accumulative_counts': 2}):
        stages = {'loss_paraphraser': {'type': 'ParaphraserLoss', 'on': {'teacher': 'backbone.layer4'},
                                       'schedule': {'end': 2}},
                  'loss_ft': {'type': 'FTLoss', 'on': 'backbone.layer4', **LATER}}
        model = student_of(stages, task_loss=LATER)
        wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
        paraphraser = 'distill.losses.loss_paraphraser'
        used = None
        for first in (0, 6):
            before = copy.deepcopy(model.state_dict())
            used = run(wrapped, used or OPTIMIZERS[0], wrapper, first=first)
            for key, value in model.state_dict().items():
                if key.endswith('weight'):
                    assert torch.equal(value, before[key]) == (key.startswith(paraphraser) == bool(first)), key
    print('the teacher alone', flush=True)
dist.barrier()
"""


def test_two_processes_are_one_on_the_joined_batch(tmp_path):
    script = tmp_path / 'bounded.py'
    script.write_text(DISTRIBUTED)
    for process in together(script, ROOT):
        assert 'as on the joined batch' in process.stdout
        assert 'off is off' in process.stdout
        assert 'the teacher alone' in process.stdout


class TestRefusals:
    def wrapper(self, model, **kwargs):
        return BoundedOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)

    def test_a_model_that_is_not_distilled(self, student):
        with pytest.raises(TypeError, match=r"BoundedOptimWrapper was given a loss that .* type='Distilled'"):
            stepped(student, self.wrapper(student))

    def test_a_total_of_which_something_was_computed(self):
        model = student_of(KD)
        total, _ = model.parse_losses(model(**batch(), mode='loss'))
        with pytest.raises(TypeError, match='hands on what parse_losses gives'):
            self.wrapper(model).update_params(2 * total)

    @pytest.mark.parametrize('task_loss', [{'loss_weight': 0.0}, {'schedule': {'begin': 2}}, {'schedule': {'end': 9}}])
    def test_a_task_loss_that_is_off(self, task_loss):
        model = student_of(KD, task_loss=task_loss)
        set_progress(3)
        with pytest.raises(ValueError, match=r"the task loss of \['student'\] is off, at some time or always"):
            stepped(model, self.wrapper(model), 1)

    @pytest.mark.parametrize(
        ('loss', 'task', 'refused'),
        [
            ({'begin': 2}, {'begin': 2}, False),
            ({'begin': 3, 'end': 5}, {'begin': 2, 'end': 5}, False),
            ({'begin': 1}, {'begin': 2}, True),
            ({'begin': 2}, {'begin': 2, 'end': 4}, True),
            ({'end': 4}, {'end': 4}, False),
            ({'end': 4}, {'end': 3}, True),
            ({'begin': 2}, {'end': 1}, True),
            ({'begin': 2}, {'begin': 2, 'by_epoch': False}, True),  # who knows
        ],
    )
    def test_a_task_loss_that_is_off_when_nothing_trains_the_student(self, loss, task, refused):
        model = student_of({'loss_kd': {**KD['loss_kd'], 'schedule': loss}}, task_loss={'schedule': task})
        assert model.distill.planner.without_task == (['student'] if refused else [])

    def test_iterations_are_no_epochs(self):
        model = student_of(KD)
        model.distill.planner.iteration_based = True
        with pytest.raises(ValueError, match=r'an iteration-based loop counts none: give a number, such as bound=1.0'):
            stepped(model, self.wrapper(model), 1)
        stepped(model, self.wrapper(model, bound=1.0), 1)

    def test_activation_checkpoints(self):
        cfg = student_cfg()
        cfg['backbone']['with_cp'] = True
        model = distill(build(cfg), {'loss_hint': {**HINT['loss_hint'], 'on': 'neck'}}, build(student_cfg(), 7))
        with pytest.raises(RuntimeError, match='through reentrant activation checkpoints: set with_cp=False'):
            stepped(model, self.wrapper(model), 1)

    def test_nobody_says_which_epoch_it_is(self):
        MessageHub.get_current_instance().runtime_info.clear()
        with pytest.raises(RuntimeError, match="bound='sigmoid', and nobody says which epoch it is"):
            Lines().update(TASK, LONG)

    @pytest.mark.parametrize('bound', [0, -1.0, float('nan'), float('inf'), True, None, 'tanh', '1'])
    def test_bounds(self, bound):
        with pytest.raises(ValueError, match='expected') as error:
            Lines(bound=bound)
        assert f'bound={bound!r} given' in str(error.value)

    @pytest.mark.parametrize('begin', [-1, 0.5, True, None, '1'])
    def test_begin(self, begin):
        with pytest.raises(ValueError, match=f'begin={begin!r} given, expected a whole number >= 0'):
            Lines(begin=begin)
        with pytest.raises(ValueError, match=r"begin=3 and bound=1\.0 given, expected begin with bound='sigmoid'"):
            Lines(bound=1.0, begin=3)


def test_a_plain_run_computes_nothing_for_it(monkeypatch):
    monkeypatch.setattr('mmkd_plugin.distillation.part.DistilledPart.value', lambda self: pytest.fail('asked'))
    model = student_of(KD)
    stepped(model, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)), 1)


def test_a_wrapper_for_the_plain_student():
    cfg = {'type': 'BoundedOptimWrapper', 'bound': 'sigmoid', 'begin': 2, 'optimizer': {'type': 'SGD'}}
    assert without_bound(cfg) == {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD'}}
    other = {'optimizer': {'type': 'SGD'}}
    assert without_bound(other) == other
