"""FitNets' two stages through the Runner: what is off is untouched, and a killed run goes on in either stage."""

import pytest
import torch

from mmkd_plugin.files.checkpoint import read_checkpoint
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import keep_start, kill, resumed

pytestmark = pytest.mark.openmmlab
LATER = ('backbone.layer3', 'backbone.layer4', 'head')


def config(folder, hint=2, epochs=4):
    cfg = digits_cfg(folder, epochs, 'digits/fitnet_stages_resnet.py')
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.model.losses.loss_hint.schedule.end = hint
    cfg.model.losses.loss_kd.schedule.begin = cfg.model.task_loss.schedule.begin = hint
    return cfg


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of an uninterrupted run, and the weights it began with."""
    folder = tmp_path_factory.mktemp('stages') / 'whole'
    runner = runner_of(config(folder))
    start = keep_start(runner)
    runner.train()
    return folder, start


def weights(folder, epoch):
    return read_checkpoint(folder / f'epoch_{epoch}.pth')['state_dict']


def test_the_first_stage_trains_up_to_the_guided_layer(whole):
    folder, start = whole
    after = weights(folder, 2)
    for key, value in after.items():
        changed = not torch.equal(value, start[key])
        if key.startswith(LATER):  # running statistics and counters too
            assert not changed, key
        elif key.endswith('weight') and value.is_floating_point():
            assert changed, key


def test_the_second_stage_trains_all_but_the_regressor(whole):
    folder, _ = whole
    before, after = weights(folder, 2), weights(folder, 4)
    for key, value in after.items():
        changed = not torch.equal(value, before[key])
        if key.startswith('distill.'):
            assert not changed, key
        elif key.endswith('weight'):
            assert changed, key


@pytest.mark.parametrize('iteration', [6, 8, 14], ids=['inside the first', 'between', 'inside the second'])
def test_killed_and_resumed(whole, tmp_path, iteration):
    folder, _ = whole
    kill(config(tmp_path / 'part'), iteration)
    after = resumed(config(tmp_path / 'part')).state_dict()
    torch.testing.assert_close(after, weights(folder, 4), rtol=0, atol=0)
