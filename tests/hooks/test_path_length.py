"""The path of weights is that of every step, survives a kill, and changes nothing; checkpoints are plain students'."""

import itertools

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import MODELS

from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.hooks import PathLengthHook
from mmkd_plugin.teachers.network_spec import model_of
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
LAYERS = ['backbone.layer4', 'head.fc']


def config(folder, epochs=2, name='dkd_resnet.py', **arguments):
    cfg = digits_cfg(folder, epochs, name)
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'PathLengthHook', **{'layers': LAYERS, **arguments}}]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


class Steps(Hook):
    """The weights after each step."""

    def __init__(self):
        self.seen = []

    def before_train(self, runner):
        self._add(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._add(runner)

    def _add(self, runner):
        state = runner.model.state_dict()
        names = [n for n in state if n.startswith('backbone.layer4') and state[n].ndim > 1], ['head.fc.weight']
        self.seen.append([torch.cat([state[n].flatten().double() for n in some]) for some in names])


def test_is_the_sum_over_steps_and_changes_nothing(tmp_path):
    runner = runner_of(config(tmp_path / 'with', 3, at=[1]))
    steps = Steps()
    runner.register_hook(steps, 'VERY_LOW')
    model = runner.train()
    without = config(tmp_path / 'without', 3)
    del without.custom_hooks[1]
    torch.testing.assert_close(runner_of(without).train().state_dict(), model.state_dict(), rtol=0, atol=0)

    for epoch, count in ((1, 4), (3, 12)):
        kept = read_checkpoint(tmp_path / f'with/explain/epoch_{epoch}.pth')
        assert kept['meta'] == {'epoch': epoch, 'iter': count}
        for layer, name in enumerate(LAYERS):
            seen = [one[layer] for one in steps.seen[: count + 1]]
            length = sum(float((b - a).norm()) for a, b in itertools.pairwise(seen))
            assert length > 0
            assert kept['path_length'][name]['length'] == pytest.approx(length, rel=1e-5)
            assert kept['path_length'][name]['start'] == pytest.approx(float(seen[0].norm()), rel=1e-5)
    assert sorted(p.name for p in (tmp_path / 'with/explain').iterdir()) == ['epoch_1.pth', 'epoch_3.pth']


def test_checkpoints_are_plain_students_at_that_time(tmp_path):
    """Of a loss with learnable parts, too; by default at epochs 0, 2, 5 ... and the last."""
    cfg = config(tmp_path, 3, 'digits/fitnet_resnet.py')
    model = runner_of(cfg).train()
    assert sorted(p.name for p in (tmp_path / 'explain').iterdir()) == [f'epoch_{n}.pth' for n in (0, 2, 3)]
    plain = MODELS.build(model_of(cfg, 'student'))
    plain.load_state_dict(read_checkpoint(tmp_path / 'explain/epoch_3.pth')['state_dict'], strict=True)
    own = {k: v for k, v in model.state_dict().items() if not k.startswith('distill.')}
    torch.testing.assert_close(plain.state_dict(), own, rtol=0, atol=0)
    start = read_checkpoint(tmp_path / 'explain/epoch_0.pth')
    assert {one['length'] for one in start['path_length'].values()} == {0.0}
    assert not torch.equal(start['state_dict']['head.fc.weight'], own['head.fc.weight'])


def test_a_killed_run_has_the_same_path(tmp_path):
    runner_of(config(tmp_path / 'whole', 3, at=[])).train()
    whole = read_checkpoint(tmp_path / 'whole/explain/epoch_3.pth')
    kill(config(tmp_path / 'part', 3, at=[]), 6)
    resumed(config(tmp_path / 'part', 3, at=[]))
    part = read_checkpoint(tmp_path / 'part/explain/epoch_3.pth')
    assert part['path_length'] == whole['path_length']
    torch.testing.assert_close(part['state_dict'], whole['state_dict'], rtol=0, atol=0)


def test_runs_by_iteration(tmp_path):
    cfg = config(tmp_path, at=[0, 2])
    cfg.train_cfg = {'by_epoch': False, 'max_iters': 3, 'val_interval': 10}
    cfg.param_scheduler = []
    cfg.custom_hooks = cfg.custom_hooks[1:]
    cfg.default_hooks.checkpoint = None
    runner_of(cfg).train()
    assert sorted(p.name for p in (tmp_path / 'explain').iterdir()) == [f'iter_{n}.pth' for n in (0, 2, 3)]
    lengths = [read_checkpoint(tmp_path / f'explain/iter_{n}.pth')['path_length'] for n in (0, 2, 3)]
    assert lengths[0]['head.fc']['length'] == 0 < lengths[1]['head.fc']['length'] < lengths[2]['head.fc']['length']


class TestRefusals:
    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            ({'layers': []}, r'layers=\[\] given, expected paths of modules'),
            ({'layers': 'head'}, r"layers='head' given"),
            ({'layers': ['head'], 'at': 3}, r'at=3 given'),
            ({'layers': ['head'], 'at': [-1]}, r'at=-1 given'),
        ],
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            PathLengthHook(**arguments)

    @pytest.mark.parametrize(
        ('layer', 'message'),
        [('backbone.layer9', r"no module 'backbone.layer9'"), ('neck', r"'neck' of the model .* has no weights")],
    )
    def test_layers(self, tmp_path, layer, message):
        with pytest.raises(ValueError, match=message):
            runner_of(config(tmp_path, layers=[layer])).train()

    def test_a_run_that_was_begun_otherwise(self, tmp_path):
        begun = config(tmp_path)
        del begun.custom_hooks[1]
        kill(begun, 5)
        with pytest.raises(RuntimeError, match='from a checkpoint without path length'):
            resumed(config(tmp_path))
        kill(config(tmp_path / 'other', layers=['head']), 5)
        with pytest.raises(RuntimeError, match=r"has the paths of \['head'\]"):
            resumed(config(tmp_path / 'other'))
