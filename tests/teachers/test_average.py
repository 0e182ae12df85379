"""The student's own moving average teaches it: what it is after each update, and that a run keeps it."""

import copy
from typing import Any

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin import distill
from mmkd_plugin.files.checkpoint import read_checkpoint, state_dict_of
from mmkd_plugin.losses import kd_loss
from tests.conftest import KD, batch, build, student_cfg
from tests.detection import DKD, detector, faster_rcnn_cfg, total
from tests.detection import batch as scenes
from tests.end_to_end.helpers import ROOT, digits_cfg, runner_of, together
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
KEPT = 'distill.kept.teacher.module.'


def averaged(student, losses=KD, **average) -> Any:
    return distill(student, losses, teacher={'type': 'Average', **average}).train()


def step(model, wrapper, seed=0):
    torch.manual_seed(seed)
    data = batch()
    data['inputs'] = data['inputs'] + 0.1 * torch.randn_like(data['inputs'])
    with wrapper.optim_context(model):
        losses = model(**data, mode='loss')
        wrapper.update_params(model.parse_losses(losses)[0])
    return losses


def wrapper_of(model, **more):
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), **more)


def own(model):
    return {key: value.clone() for key, value in model.state_dict().items() if not key.startswith('distill.')}


def kept(model):
    state = model.state_dict()
    return {key.removeprefix(KEPT): value.clone() for key, value in state.items() if key.startswith(KEPT)}


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('momentum', 'gamma'), [(0.25, 1), (0.01, 1), (0.01, 3)])
def test_it_is_the_average_after_each_update(student, momentum, gamma):
    model = averaged(student, momentum=momentum, gamma=gamma, update_buffers=True)
    wrapper, expected = wrapper_of(model), own(model)
    for number in range(5):
        before = expected
        step(model, wrapper, number)
        part = max(momentum, gamma / (gamma + number))
        now = own(model)
        expected = {
            key: before[key] + part * (now[key] - before[key]) if value.is_floating_point() else kept(model)[key]
            for key, value in now.items()
        }
        close(kept(model), expected)


def test_running_statistics_are_the_students_own(student):
    model = averaged(student, momentum=0.1)
    wrapper = wrapper_of(model)
    for number in range(3):
        step(model, wrapper, number)
    now = kept(model)
    assert all(torch.equal(now[key], value) for key, value in own(model).items() if 'running' in key)
    assert not torch.equal(now['backbone.conv1.weight'], own(model)['backbone.conv1.weight'])


def test_before_the_first_update_it_is_the_student(student):
    reference = copy.deepcopy(student)
    model = averaged(student)
    losses = model(**batch(), mode='loss')
    z_t = reference.eval()(batch()['inputs'], mode='tensor')
    z_s = reference.train()(batch()['inputs'], mode='tensor')
    torch.testing.assert_close(losses['loss_kd'], kd_loss(z_s, z_t, 4.0))
    for _ in range(3):
        model(**batch(), mode='loss')  # nobody updates
    assert torch.equal(kept(model)['head.fc.weight'], own(model)['head.fc.weight'])
    assert int(model.distill.kept.teacher.steps) == 0


def test_it_starts_from_the_weights_that_training_starts_from(student):
    """Not from those that it was built with."""
    model = averaged(student)
    state = build(student_cfg(), 5).state_dict()
    model.load_state_dict(state, strict=False)
    model(**batch(), mode='loss')
    assert torch.equal(kept(model)['head.fc.weight'], state['head.fc.weight'])


def test_it_does_not_learn(student):
    model = averaged(student)
    parameters = dict(model.distill.kept.named_parameters())
    assert parameters
    assert not any(p.requires_grad for p in parameters.values())
    model.parse_losses(model(**batch(), mode='loss'))[0].backward()
    assert all(p.grad is None for p in parameters.values())
    model.train()
    assert not any(module.training for module in model.distill.kept.teacher.modules())
    before = kept(model)
    model(**batch(), mode='loss')
    assert all(torch.equal(value, before[key]) for key, value in kept(model).items())  # statistics as well


def test_accumulated_gradients_are_one_update(student):
    model = averaged(student)
    wrapper = wrapper_of(model, accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, 9)
    seen = []
    for number in range(9):
        step(model, wrapper, number)
        seen.append(int(model.distill.kept.teacher.steps))
    assert seen == [0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_an_optimizer_of_others_is_none_of_its_business(student):
    model = averaged(student)
    model(**batch(), mode='loss')
    other = nn.Linear(2, 2)
    other(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert int(model.distill.kept.teacher.steps) == 0


class Writes(torch.optim.Optimizer):
    """Writes into `.data`, so that torch counts no version."""

    def __init__(self, parameters):
        super().__init__(parameters, {'lr': 0.1})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is not None:
                    p.data.add_(p.grad, alpha=-0.1)


def test_any_optimizer_is_heard_of(student):
    model = averaged(student)
    wrapper = OptimWrapper(Writes(model.parameters()))
    step(model, wrapper)
    step(model, wrapper)
    assert int(model.distill.kept.teacher.steps) == 2


def test_an_update_that_torch_does_not_know_of_is_told(student, monkeypatch):
    monkeypatch.setattr('mmkd_plugin.teachers.average._PATIENCE', 3)
    model = averaged(student)
    with torch.no_grad():
        for _ in range(9):
            model(**batch(), mode='loss')
    for _ in range(3):
        model(**batch(), mode='loss')
    with pytest.raises(RuntimeError, match=r'teacher \(Average\): 3 steps, and no torch.optim.Optimizer'):
        model(**batch(), mode='loss')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu_and_where_the_scaler_skips(student):
    model = averaged(student.cuda())
    wrapper = AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.05), loss_scale=2.0**60)
    data = batch()
    data['inputs'] = data['inputs'].cuda()
    for sample in data['data_samples']:
        sample.to('cuda')
    for expected in (0, 0):  # gradients overflow
        with wrapper.optim_context(model):
            wrapper.update_params(model.parse_losses(model(**data, mode='loss'))[0])
        assert int(model.distill.kept.teacher.steps) == expected


def test_a_copy_has_an_average_of_its_own(student):
    model = averaged(student)
    wrapper = wrapper_of(model)
    step(model, wrapper)
    twin = copy.deepcopy(model)
    source = twin.distill.sources['teacher']
    assert source.model is twin.distill.kept.teacher.module is not model.distill.kept.teacher.module
    before = kept(model)
    step(twin, wrapper_of(twin), 3)
    assert int(twin.distill.kept.teacher.steps) == 2
    assert int(model.distill.kept.teacher.steps) == 1
    assert all(torch.equal(value, before[key]) for key, value in kept(model).items())
    step(model, wrapper, 3)
    assert int(twin.distill.kept.teacher.steps) == 2


def test_two_of_them(student):
    teachers = {'fast': {'type': 'Average', 'momentum': 0.5}, 'slow': {'type': 'Average', 'momentum': 0.01}}
    losses = {f'loss_{name}': {**KD['loss_kd'], 'teacher': name} for name in teachers}
    model = distill(student, losses, teachers=teachers).train()
    wrapper = wrapper_of(model)
    for number in range(4):
        step(model, wrapper, number)
    weights = [net.head.fc.weight for net in (model, *(k.module for k in model.distill.kept.values()))]
    far = [float((weight - weights[0]).detach().norm()) for weight in weights]
    assert 0 == far[0] < far[1] < far[2]


def test_features_and_values_that_go_through_it(student):
    losses = {
        'loss_hint': {'type': 'FitNetLoss', 'on': 'backbone.layer2'},
        'loss_through': {**KD['loss_kd'], 'through': 'neck', 'on': {'student': 'neck', 'teacher': 'head.fc'}},
    }
    model = averaged(student, losses)
    values = model(**batch(), mode='loss')
    model.parse_losses(values)[0].backward()
    assert values['loss_through'] > 0
    assert all(p.grad is None for p in model.distill.kept.parameters())


def test_losses_that_take_something_from_its_weights_are_refused(student):
    model = averaged(student, {'loss_ofd': {'type': 'OFDLoss', 'on': ['backbone.layer4.1.relu:input']}})
    with pytest.raises(ValueError, match="the weights of 'teacher' before training, and these change"):
        model.init_weights()


def test_detectors_are_read_on_the_students_rois():
    model = averaged(detector(faster_rcnn_cfg()), DKD, momentum=0.1)
    MessageHub.get_current_instance().update_info('max_epochs', 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for number in range(2):
        torch.manual_seed(number)
        loss = total(model, scenes())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert int(model.distill.kept.teacher.steps) == 2
    torch.manual_seed(9)
    losses = model(**scenes(), mode='loss')
    assert losses['loss_dkd'].isfinite()
    assert losses['loss_dkd'] > 0


def config(folder, epochs=3, **more):
    cfg = digits_cfg(folder, epochs, 'digits/mean_teacher_resnet.py')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.merge_from_dict(more)
    return cfg


def same(model, other):
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


EMA = {'custom_hooks': [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}, {'type': 'EMAHook', 'momentum': 0.1}]}


ACCUMULATED = {'optim_wrapper.accumulative_counts': 2}


@pytest.mark.parametrize('more', [{}, EMA, ACCUMULATED], ids=['plain', 'ema', 'accumulated'])
def test_through_the_runner_killed_and_resumed(tmp_path, more):
    whole = runner_of(config(tmp_path / 'whole', **more)).train()
    assert int(whole.distill.kept.teacher.steps) == (6 if more == ACCUMULATED else 12)
    kill(config(tmp_path / 'part', **more), 6)
    same(resumed(config(tmp_path / 'part', **more)), whole)
    assert not torch.equal(kept(whole)['head.fc.weight'], own(whole)['head.fc.weight'])
    # the slim student is plain
    plain = MODELS.build(digits_cfg(tmp_path, config='digits/resnet_student.py').model)
    plain.load_state_dict(state_dict_of(read_checkpoint(tmp_path / 'part' / 'epoch_3.pth')), strict=True)


def test_a_student_beside_ema_is_as_without_it(tmp_path):
    alone = runner_of(config(tmp_path / 'alone')).train()
    same(runner_of(config(tmp_path / 'ema', **EMA)).train(), alone)


def test_a_run_that_starts_from_a_distilled_checkpoint_starts_an_average_anew(tmp_path):
    first = runner_of(config(tmp_path / 'first', 1))
    first.train()
    cfg = config(tmp_path / 'second', 1)
    cfg.load_from = str(tmp_path / 'first' / 'epoch_1.pth')
    runner = runner_of(cfg)
    seen: dict[str, Any] = {}

    def see(model, args, output):
        seen.setdefault('kept', kept(model))

    runner.model.register_forward_hook(see)
    start = own(first.model)
    runner.train()
    assert int(runner.model.distill.kept.teacher.steps) == 4
    for key, value in seen['kept'].items():
        if key in dict(first.model.named_parameters()):
            assert torch.equal(value, start[key]), key


def test_a_run_that_was_begun_without_is_not_resumed(tmp_path):
    cfg = config(tmp_path / 'run', 2)
    cfg.model.teacher = {'type': 'Own'}
    cfg.model.losses.loss_kd = {
        'type': 'FitNetLoss',
        'on': {'student': 'backbone.layer3', 'teacher': 'backbone.layer4'},
    }
    kill(cfg, 6)
    with pytest.raises(ValueError, match='written with other learnable parts'):
        resumed(config(tmp_path / 'run', 2, **{'custom_hooks': EMA['custom_hooks'][:2]}))


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'momentum': 0}, 'teacher: momentum=0 given'),
        ({'momentum': 1}, 'momentum=1 given, expected less'),
        ({'momentum': '0.1'}, "momentum='0.1' given"),
        ({'gamma': 0}, 'teacher: gamma=0 given'),
        ({'update_buffers': 'yes'}, "update_buffers='yes' given"),
        ({'momentun': 0.1}, r"unknown keys \['momentun'\] \(did you mean momentum"),
        ({'checkpoint': 'x.pth'}, r"unknown keys \['checkpoint'\]"),
    ],
)
def test_mistakes(student, change, match):
    with pytest.raises(ValueError, match=match):
        averaged(student, **change)


TOGETHER = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from tests.end_to_end.helpers import tiny_options, train_here
from mmengine.runner import Runner
runners = []
make = Runner.from_cfg.__func__
Runner.from_cfg = classmethod(lambda cls, cfg: runners.append(make(cls, cfg)) or runners[-1])
options = tiny_options(2, **{'train_dataloader.batch_size': 5})
torch.distributed.destroy_process_group = lambda: None
train_here('configs/digits/mean_teacher_resnet.py', sys.argv[2], '--launcher', 'pytorch', '--no-validate', **options)
model = runners[0].model.module
for part, same in ((model.distill.kept, True), (model.backbone, False)):
    for name, value in part.state_dict().items():
        both = [torch.empty_like(value) for _ in range(2)]
        torch.distributed.all_gather(both, value.contiguous())
        assert torch.equal(*both) or not same and 'running' in name, name
assert int(model.distill.kept.teacher.steps) == 8
statistics = model.state_dict()['backbone.bn1.running_mean']
both = [torch.empty_like(statistics) for _ in range(2)]
torch.distributed.all_gather(both, statistics)
assert not torch.equal(*both)
print('the same average', flush=True)
torch.distributed.barrier()
"""


def test_processes_have_the_same_average(tmp_path):
    """Of running statistics too, which each student has of its own."""
    script = tmp_path / 'together.py'
    script.write_text(TOGETHER)
    assert all('the same average' in process.stdout for process in together(script, ROOT, tmp_path / 'run'))
