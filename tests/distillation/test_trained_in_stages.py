"""FT and AB in two stages through the Runner: what is off is untouched, and a killed run goes on in either stage."""

import pytest
import torch

from mmkd_plugin.files.checkpoint import read_checkpoint
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import keep_start, kill, resumed

pytestmark = pytest.mark.openmmlab

STUDENT = ('backbone.', 'head.')
PARAPHRASER, TRANSLATOR = 'distill.losses.loss_paraphraser.', 'distill.losses.loss_ft.'
CONNECTORS = 'distill.losses.loss_ab.'
#: By method, what its first and its second stage train.
TRAINED: dict[str, list[tuple[str, ...]]] = {
    'ft': [(PARAPHRASER,), (*STUDENT, TRANSLATOR)],
    'ab': [('backbone.', CONNECTORS), STUDENT],
}
methods = pytest.mark.parametrize('method', TRAINED)


def config(folder, method, **task):
    """Two epochs of each stage, as the recipes for CIFAR-100 are trained."""
    cfg = digits_cfg(folder, 4, f'digits/{method}_resnet.py')
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}, {'type': 'PhaseHook', 'optimizer': True}]
    cfg.optim_wrapper.paramwise_cfg = {'custom_keys': {'distill.losses.loss_paraphraser': {'lr_mult': 0.2}}}
    cfg.param_scheduler = {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1}
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    for staged in (*cfg.model.losses.values(), cfg.model.task_loss):
        staged.schedule = dict.fromkeys(staged.schedule, 2)
    cfg.model.task_loss.update(task)
    return cfg


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """By method, the runner of an uninterrupted run, and the weights it began with and had after each stage."""
    runs = {}
    for method in TRAINED:
        folder = tmp_path_factory.mktemp(method)
        runner = runner_of(config(folder, method))
        start = keep_start(runner)
        runner.train()
        runs[method] = runner, [start, *(read_checkpoint(folder / f'epoch_{n}.pth')['state_dict'] for n in (2, 4))]
    return runs


@methods
@pytest.mark.parametrize('stage', [0, 1], ids=['first', 'second'])
def test_each_stage_trains_its_own_and_leaves_the_rest(whole, method, stage):
    before, after = whole[method][1][stage : stage + 2]
    assert before.keys() == after.keys()
    assert all(any(key.startswith(part) for key in after) for stage in TRAINED[method] for part in stage)
    for key, value in after.items():
        changed = not torch.equal(value, before[key])
        if not key.startswith(TRAINED[method][stage]):  # running statistics and counters too
            assert not changed, key
        elif key.endswith('weight'):
            assert changed, key


def test_the_paraphraser_has_a_learning_rate_of_its_own(whole):
    runner = whole['ft'][0]
    rates = {id(p): g['initial_lr'] for g in runner.optim_wrapper.optimizer.param_groups for p in g['params']}
    base = runner.cfg.optim_wrapper.optimizer.lr
    for name, parameter in runner.model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(base * (0.2 if name.startswith(PARAPHRASER) else 1)), name


@methods
@pytest.mark.parametrize('iteration', [6, 8, 14], ids=['inside the first', 'between', 'inside the second'])
def test_killed_and_resumed(whole, tmp_path, method, iteration):
    kill(config(tmp_path, method), iteration)
    after = resumed(config(tmp_path, method)).state_dict()
    torch.testing.assert_close(after, whole[method][1][2], rtol=0, atol=0)


def test_two_losses_may_use_one_paraphraser(tmp_path):
    cfg = config(tmp_path, 'ft')
    cfg.model.losses.loss_attention = {**cfg.model.losses.loss_ft, 'factor': 'attention'}
    distillation = runner_of(cfg).model.distill
    first, second = (distillation.losses[name][0] for name in ('loss_ft', 'loss_attention'))
    assert first.used('paraphraser') is second.used('paraphraser') is distillation.losses['loss_paraphraser'][0]


@pytest.mark.parametrize('left', [{}, {'loss_weight': 0}])
def test_a_student_that_nothing_ever_trains_is_refused(tmp_path, left):
    """The task loss weighs nothing, and the one loss that counts reads a teacher alone."""
    cfg = config(tmp_path, 'ft', loss_weight=0)
    if left:
        cfg.model.losses.loss_ft.update(left)
    else:
        cfg.model.losses.loss_ft = None
    with pytest.raises(ValueError, match=r"nothing trains the student.*no loss with learner='student' has a weight"):
        runner_of(cfg)


def test_a_second_stage_that_never_begins_is_refused(tmp_path):
    cfg = config(tmp_path, 'ab', schedule={'begin': 4})
    with pytest.raises(ValueError, match=r'the task loss begins at epoch 4 \(from 0\), and this run has 4'):
        runner_of(cfg).train()


def test_parts_that_no_loss_uses_are_told(tmp_path, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr('mmkd_plugin.distillation.uses.print_log', lambda text, *_: told.append(text))
    cfg = config(tmp_path, 'ft')
    runner_of(cfg)
    assert not told
    cfg.model.losses.loss_ft = None
    runner_of(cfg)
    assert told == ["['loss_paraphraser'] train parts of their own on a teacher alone, and no loss uses them"]
