"""DistillHook: samples carry an index of their own where a loss asks for it."""

from typing import ClassVar

import pytest
from mmengine.registry import MODELS

from mmkd_plugin.losses import DistillLoss
from tests.end_to_end.helpers import digits_cfg, runner_of

pytestmark = pytest.mark.openmmlab
SEEN: list[list[int]] = []


@MODELS.register_module()
class IndexLoss(DistillLoss):
    """Remembers which samples it met."""

    needs: ClassVar[tuple[str, ...]] = ('sample_idx',)

    def forward(self, student, teacher, sample_idx):
        SEEN.append(sample_idx.tolist())
        return self.loss_weight * (student - teacher).square().mean()


def config(folder, hook='DistillHook', wrapper='ConcatDataset', epochs=1):
    cfg = digits_cfg(folder, epochs)
    inner = cfg.train_dataloader.dataset.to_dict()
    parts = {'datasets': [inner, inner]} if wrapper == 'ConcatDataset' else {'dataset': inner, 'times': 2}
    cfg.train_dataloader.dataset = {'type': wrapper, **parts}
    cfg.model.losses = {'loss_index': {'type': 'IndexLoss', 'on': 'head.fc'}}
    cfg.custom_hooks = [{'type': hook}] if hook else []
    if hook != 'TeacherEvalHook':
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


@pytest.mark.parametrize('wrapper', ['ConcatDataset', 'RepeatDataset'])
@pytest.mark.parametrize('hook', ['DistillHook', 'TeacherEvalHook'])
def test_every_entry_is_met_once(tmp_path, wrapper, hook):
    runner = runner_of(config(tmp_path, hook, wrapper))
    SEEN.clear()  # of the dry run
    runner.train()
    assert sorted(index for batch in SEEN for index in batch) == list(range(80))


def test_iteration_based_runs(tmp_path):
    cfg = config(tmp_path)
    cfg.train_cfg, cfg.param_scheduler = {'type': 'IterBasedTrainLoop', 'max_iters': 8}, []
    cfg.train_dataloader.sampler = {'type': 'InfiniteSampler', 'shuffle': False}
    runner = runner_of(cfg)
    SEEN.clear()
    runner.train()
    assert [index for batch in SEEN for index in batch] == list(range(80))


@pytest.mark.parametrize('by_epoch', [True, False])
def test_schedules_are_checked_before_the_teacher_is_evaluated(tmp_path, by_epoch):
    """Those of iterations wait for the first step: hooks may change their number."""
    cfg = digits_cfg(tmp_path, 1, log_level='INFO')
    cfg.model.losses.loss_dkd.schedule = {'begin': 9, 'by_epoch': by_epoch}
    cfg.custom_hooks = [{'type': 'TeacherEvalHook'}]
    with pytest.raises(ValueError, match=r'begins at .* 9'):
        runner_of(cfg).train()
    assert ('Before training' in next(tmp_path.glob('*/*.log')).read_text()) is not by_epoch


def test_with_kcd(tmp_path):
    cfg = config(tmp_path, epochs=2)
    cfg.custom_hooks.append({'type': 'KCDHook', 'interval': 1, 'final_ratio': 0.5, 'logits': 'head.fc'})
    runner = runner_of(cfg)
    SEEN.clear()
    runner.train()
    assert len({index for batch in SEEN[-4:] for index in batch}) == 40


def test_without_the_hook_the_line_to_add_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"this batch has none: add dict\(type='DistillHook'\) to custom_hooks"):
        runner_of(config(tmp_path, hook=None)).train()


def test_nothing_is_wrapped_where_nobody_asks(tmp_path):
    cfg = config(tmp_path)
    cfg.model.losses = {'loss_kd': {'type': 'KDLoss', 'on': 'head.fc'}}
    runner = runner_of(cfg)
    runner.train()
    assert type(runner.train_dataloader.dataset).__name__ == 'ConcatDataset'
