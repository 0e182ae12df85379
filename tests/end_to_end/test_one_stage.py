"""One-stage students through the real Runner: of a one-stage teacher (CrossKD, LD), and of a two-stage one (PKD)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import ROOT, Forked, forked, together, train_here
from tests.end_to_end.test_detection import mean_ap, train

pytestmark = [pytest.mark.openmmlab]

PLAIN = config_path('digit_scenes/gfl_teacher.py')
# the student is as big as the teacher and starts from its weights, so that it finds something after a few steps
CONFIG = """
_base_ = __import__('mmkd_plugin').config_path('digit_scenes/gfl_teacher.py')
model = {model}
load_from = {weights!r}
train_dataloader = dict(batch_size=4, dataset=dict(images=12, pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(images=20))
test_dataloader = val_dataloader
param_scheduler = dict(eta_max=1e-4, total_steps={epochs})
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
custom_hooks = [dict(type='EpochSeedHook'), dict(type='EMAHook', momentum=0.1)]
"""
PAIRS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    'gfl': (
        'gfl_teacher',
        {
            'loss_cross': {'type': 'CrossKDLoss', 'on': 'bbox_head', 'boxes': 'distributions'},
            'loss_ld': {'type': 'LDLoss', 'on': 'bbox_head', 'valuable_weight': 1.0},
        },
    ),
    'mixed': (
        'faster_rcnn_teacher',
        {
            'loss_pkd': {
                'type': 'PKDLoss',
                'on': [{'student': f'neck[{i}]', 'teacher': f'neck[{i + 1}]'} for i in range(3)],
            }
        },
    ),
}


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> str:
    """Of a small GFL, its teacher and losses."""
    return str(request.param)


def config(tmp_path: Path, pair: str | None, epochs: int = 1, **more: Any) -> Path:
    """Without a pair, that of the plain student."""
    model: dict[str, Any] = {}
    if pair:
        teacher, losses = PAIRS[pair]
        given = {name: {**loss, **more} for name, loss in losses.items()}
        teaches = {'config': f'mmkd_plugin::digit_scenes/{teacher}.py'}
        model = {'type': 'Distilled', 'student': 'GFL', 'teacher': teaches, 'losses': given}
    path = tmp_path / f'{pair or "plain"}.py'
    weights = str(ROOT / 'mmkd_plugin/checkpoints/digit_scenes/gfl_teacher.pth')
    path.write_text(CONFIG.format(model=model, weights=weights, epochs=epochs))
    return path


def state_of(work_dir: Path, epoch: int, key: str = 'state_dict') -> dict[str, Any]:
    state: dict[str, Any] = read_checkpoint(str(work_dir / f'epoch_{epoch}.pth'))[key]
    return state


def load_strictly(state: dict[str, Any]) -> None:
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(PLAIN).model)
    model.load_state_dict(state, strict=True)


def test_two_processes_leave_a_plain_detector(tmp_path, pair):
    """Its weights fit, slim or not, and mmdet's own test gives the same."""
    import mmdet

    path, work_dir = config(tmp_path, pair), tmp_path / 'run'
    together('tools/train.py', path, '--launcher', 'pytorch', '--work-dir', work_dir)
    load_strictly(state_of(work_dir, 1))
    averaged = state_of(work_dir, 1, 'ema_state_dict')
    load_strictly({k.removeprefix('module.'): v for k, v in averaged.items() if k != 'steps'})
    forked('tools/publish_model.py', work_dir / 'epoch_1.pth', tmp_path / 'slim.pth')
    ours = mean_ap(forked('tools/test.py', path, work_dir / 'epoch_1.pth', '--work-dir', tmp_path / 'ours').stdout)
    tool, plain = f'{mmdet.__path__[0]}/.mim/tools/test.py', config(tmp_path, None)
    slim = next(tmp_path.glob('slim-*.pth'))
    assert ours == mean_ap(forked(tool, plain, slim, '--work-dir', tmp_path / 'theirs').stdout) > 0.5


def test_sigkill_and_resume_equals_the_uninterrupted_run(tmp_path, pair):
    path = config(tmp_path, pair, epochs=4)
    train_here(path, tmp_path / 'whole')
    Forked('tools/train.py', path, '--work-dir', tmp_path / 'killed').kill_when(tmp_path / 'killed/epoch_2.pth')
    assert not (tmp_path / 'killed/epoch_4.pth').exists()
    train(path, tmp_path / 'killed', '--resume')
    a, b = (state_of(tmp_path / name, 4) for name in ('whole', 'killed'))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_without_a_weight_it_is_the_plain_student(tmp_path, pair):
    train_here(config(tmp_path, None), tmp_path / 'plain')
    train_here(config(tmp_path, pair), tmp_path / 'taught')
    train_here(config(tmp_path, pair, loss_weight=0.0), tmp_path / 'off')
    plain, taught, off = (state_of(tmp_path / name, 1) for name in ('plain', 'taught', 'off'))
    assert plain.keys() == off.keys()
    assert all(torch.equal(plain[k], off[k]) for k in plain)
    assert not all(torch.equal(plain[k], taught[k]) for k in plain)
