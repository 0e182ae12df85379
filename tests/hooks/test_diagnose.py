"""DiagnoseHook logs shares, and changes nothing that is trained."""

import pytest
import torch
from mmengine.hooks import Hook

from mmkd_plugin.hooks import DiagnoseHook
from tests.end_to_end.helpers import digits_cfg, runner_of, together

pytestmark = pytest.mark.openmmlab


class Keep(Hook):
    """What the log had after each iteration."""

    priority = 'LOW'

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        scalars = runner.message_hub.log_scalars
        self.seen.append({name: scalars[f'train/{name}'].data[0].tolist() for name in ('share/loss_dkd', 'share/task',
                          'cosine/loss_dkd') if f'train/{name}' in scalars})  # fmt: skip


def train(folder, *hooks, **options):
    torch.manual_seed(0)
    cfg = digits_cfg(folder, epochs=2, **{'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None, **options})
    cfg.custom_hooks = [*hooks, dict(type='DistillHook'), dict(type='EpochSeedHook')]
    runner = runner_of(cfg)
    keep = Keep()
    runner.register_hook(keep)
    runner.train()
    return runner, keep.seen


def test_it_logs_and_changes_nothing(tmp_path):
    plain, _ = train(tmp_path / 'plain')
    watched, seen = train(tmp_path / 'watched', dict(type='DiagnoseHook', interval=3))
    assert [len(values.get('share/loss_dkd', [])) for values in seen] == [0, 0, 1, 1, 1, 2, 2, 2]
    last = seen[-1]
    assert last['share/loss_dkd'][-1] + last['share/task'][-1] == pytest.approx(1, abs=1e-4)
    assert -1 <= last['cosine/loss_dkd'][-1] <= 1
    a, b = plain.model.state_dict(), watched.model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not watched.model.distill.listeners


def test_it_is_refused_where_nothing_is_distilled(tmp_path):
    cfg = digits_cfg(tmp_path, epochs=1, config='digits/resnet_student.py')
    cfg.custom_hooks = [dict(type='DiagnoseHook')]
    with pytest.raises(RuntimeError, match='a ImageClassifier without distillation losses'):
        runner_of(cfg).train()


@pytest.mark.parametrize('interval', [0, -1, 2.5, True])
def test_intervals(interval):
    with pytest.raises(ValueError, match='interval'):
        DiagnoseHook(interval)


SCRIPT = """
import sys
import torch
from mmkd_plugin.launch import run_train
from tests.end_to_end.helpers import digits_cfg, parse, options, tiny_options, ROOT
values = tiny_options(1, **{'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None,
                            'custom_hooks.0.type': 'DiagnoseHook', 'custom_hooks.0.interval': 1,
                            'custom_hooks.1.type': 'DistillHook', 'log_level': 'INFO'})
values['default_hooks.logger.interval'] = 1
given = ['configs/dkd_resnet.py', '--work-dir', sys.argv[1], '--launcher', 'pytorch', *options(values)]
run_train(parse('train.py', *given))
"""


def test_two_processes(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT)
    together(script, tmp_path / 'run')
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'share/loss_dkd: 0.' in log, log[-3000:]
