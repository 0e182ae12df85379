"""Mutual learning through the command line: plain checkpoints of each learner, and what others' tools say of them."""

from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import forked, options, tiny_options, together, train_here
from tests.end_to_end.test_checkpoints import accuracy_in
from tests.end_to_end.test_detection import mean_ap

pytestmark = [pytest.mark.openmmlab]
SCENES: dict[str, Any] = {
    'train_dataloader.dataset.images': 8,
    'train_dataloader.batch_size': 4,
    'val_dataloader.dataset.images': 8,
    'param_scheduler.total_steps': 2,
    'train_cfg.max_epochs': 2,
    'train_cfg.val_interval': 1,
}


def plain_config(folder, name, student, peer, **dataset):
    """A learner's own plain config, as a file for the tools that mmpretrain and mmdet bring."""
    plain = Config.fromfile(config_path(student))
    if peer:
        plain.model = Config.fromfile(config_path(name)).model.teachers[peer].model
    plain.merge_from_dict({f'test_dataloader.dataset.{key}': value for key, value in dataset.items()})
    plain.dump(str(folder / f'plain_{peer}.py'))
    return folder / f'plain_{peer}.py'


def in_turn(folder, name):
    """The config with turns."""
    path = folder / 'in_turn.py'
    path.write_text(
        f"_base_ = __import__('mmkd_plugin').config_path({name!r})\n"
        "custom_hooks = [dict(type='EpochSeedHook'), dict(type='InTurnHook')]\n"
    )
    return path


def published(name, checkpoint, peer, folder):
    """The slim file; `--config` makes the tool compare it with the learner's plain model."""
    named = ['--peer', peer] if peer else []
    forked('tools/publish_model.py', checkpoint, folder / f'{peer}.pth', '--config', f'configs/{name}', *named)
    return next(folder.glob(f'{peer}-*.pth'))


@pytest.mark.parametrize(('name', 'peer'), [('mutual_resnet', 'peer'), ('mutual_wide_resnet', 'wide')])
def test_classifiers_are_published_and_score_the_same_under_mmpretrains_tool(tmp_path, name, peer):
    import mmpretrain

    name = f'digits/{name}.py'
    settings = tiny_options(4, log_level='INFO', **{'train_dataloader.dataset.per_class': 20})
    output = forked('tools/train.py', f'configs/{name}', '--work-dir', tmp_path / 'run', *options(settings)).stdout
    line = next(line for line in output.splitlines() if 'Epoch(val) [4]' in line)
    tool = f'{mmpretrain.__path__[0]}/.mim/tools/test.py'
    for who, key in ((None, ' accuracy/top1: '), (peer, f'{peer}/accuracy/top1: ')):
        file = published(name, tmp_path / 'run/epoch_4.pth', who, tmp_path)
        assert not any('distill' in key for key in torch.load(file, weights_only=True)['state_dict'])
        plain = plain_config(tmp_path, name, 'digits/resnet_student.py', who, indices=list(range(0, 1000, 10)))
        theirs = accuracy_in(forked(tool, plain, file, '--work-dir', tmp_path / 't').stdout)
        assert float(line.split(key)[1].split()[0]) == pytest.approx(theirs, abs=1e-3)


def test_detectors_learn_from_each_other_and_are_published(tmp_path):
    import mmdet

    name = 'digit_scenes/mutual_faster_rcnn.py'
    output = forked('tools/train.py', f'configs/{name}', '--work-dir', tmp_path / 'run', *options(SCENES)).stdout
    for key in ('loss_rpn_cls: ', 'peer.loss_bbox: ', 'loss_at_student: ', 'loss_at_peer: '):
        assert key in output
    line = [line for line in output.splitlines() if 'Epoch(val) [2]' in line][-1]
    tool = f'{mmdet.__path__[0]}/.mim/tools/test.py'
    for who, key in ((None, ' pascal_voc/mAP: '), ('peer', 'peer/pascal_voc/mAP: ')):
        file = published(name, tmp_path / 'run/epoch_2.pth', who, tmp_path)
        plain = plain_config(tmp_path, name, 'digit_scenes/faster_rcnn_student.py', who, images=8)
        theirs = mean_ap(forked(tool, plain, file, '--work-dir', tmp_path / 't').stdout)
        assert float(line.split(key)[1].split()[0]) == pytest.approx(theirs, abs=1e-3)


def test_two_detectors_in_two_processes_in_turn(tmp_path):
    settings = {**SCENES, 'train_dataloader.batch_size': 2, 'train_cfg.max_epochs': 1}
    together('tools/train.py', in_turn(tmp_path, 'digit_scenes/mutual_faster_rcnn.py'), '--launcher', 'pytorch',
             '--no-validate', '--work-dir', tmp_path / 'run', *options(settings))  # fmt: skip
    state = read_checkpoint(tmp_path / 'run/epoch_1.pth')['state_dict']
    own = {key for key in state if not key.startswith('distill.')}
    assert {key.removeprefix('distill.peers.peer.') for key in state if key not in own} == own
    assert all(value.isfinite().all() for value in state.values())


def test_resumed_in_turn_with_validation_is_the_whole_run(tmp_path):
    """By the command line, whose hooks evaluate the peers."""
    config, settings = in_turn(tmp_path, 'digits/mutual_resnet.py'), {**tiny_options(2), 'train_cfg.val_interval': 1}
    for folder in ('whole', 'part'):
        train_here(config, tmp_path / folder, **settings)
    (tmp_path / 'part/epoch_2.pth').unlink()
    train_here(config, tmp_path / 'part', '--resume', tmp_path / 'part/epoch_1.pth', **settings)
    a, b = (read_checkpoint(tmp_path / name / 'epoch_2.pth')['state_dict'] for name in ('whole', 'part'))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
