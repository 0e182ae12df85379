"""Learning rates and the optimizer begin anew with a phase, and a resumed run does the same."""

import pytest
import torch

from mmkd_plugin.hooks import PhaseHook
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab


def config(folder, begin=2, **arguments):
    cfg = digits_cfg(folder, 4, 'digits/fitnet_stages_resnet.py')
    cfg.model.losses.loss_hint.schedule.end = begin
    cfg.model.losses.loss_kd.schedule.begin = cfg.model.task_loss.schedule.begin = begin
    cfg.param_scheduler = {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1}
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}, {'type': 'PhaseHook', **arguments}]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    return cfg


class Watch(PhaseHook):
    """What the first iteration of each epoch finds."""

    priority = 'VERY_LOW'

    def __init__(self, seen):
        self.seen = seen

    def before_train(self, runner):
        pass

    def before_train_epoch(self, runner):
        optimizer = runner.optim_wrapper.optimizer
        self.seen.append((runner.epoch, optimizer.param_groups[0]['lr'], bool(optimizer.state)))


def seen_in(cfg):
    seen: list[tuple[int, float, bool]] = []
    runner = runner_of(cfg)
    runner.register_hook(Watch(seen), 'VERY_LOW')
    base = cfg.optim_wrapper.optimizer.lr
    model = runner.train()
    return model, [(epoch, pytest.approx(lr / base), kept) for epoch, lr, kept in seen]


def test_schedules_count_from_the_phase(tmp_path):
    model, seen = seen_in(config(tmp_path / 'whole'))
    assert seen == [(0, 1, False), (1, 0.1, True), (2, 1, True), (3, 0.1, True)]
    for iteration in (6, 10):
        folder = tmp_path / f'part{iteration}'
        kill(config(folder), iteration)
        torch.testing.assert_close(resumed(config(folder)).state_dict(), model.state_dict(), rtol=0, atol=0)


def test_the_optimizer_forgets_if_asked(tmp_path):
    _, seen = seen_in(config(tmp_path, schedulers=False, optimizer=True))
    assert seen == [(0, 1, False), (1, 0.1, True), (2, 0.1, False), (3, 0.1, True)]


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match='restarts nothing'):
        PhaseHook(schedulers=False)
    with pytest.raises(ValueError, match="optimizer='no' given"):
        PhaseHook(optimizer='no')  # type: ignore[arg-type]
    plain = digits_cfg(tmp_path / 'plain', 2)
    plain.custom_hooks = [{'type': 'PhaseHook'}]
    with pytest.raises(RuntimeError, match='no loss goes on or off'):
        runner_of(plain).train()
    without = config(tmp_path / 'without')
    without.param_scheduler = None
    with pytest.raises(RuntimeError, match='needs param_scheduler'):
        runner_of(without).train()
