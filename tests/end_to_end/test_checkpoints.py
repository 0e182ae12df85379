"""What a distillation run writes is a plain student's checkpoint."""

import copy

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_plugin.files.atomic import save_checkpoint
from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.teachers import plain_student
from tests.distillation.test_step import HINT
from tests.end_to_end.helpers import ROOT, digits_cfg, forked, options, runner_of, tiny_options

pytestmark = [pytest.mark.openmmlab]


def plain_config(tmp_path):
    """The plain student's own config, as a file for the tools that mmpretrain brings."""
    cfg = digits_cfg(tmp_path / 'plain', config='digits/resnet_student.py', log_level='INFO')
    path = tmp_path / 'plain.py'
    cfg.dump(str(path))
    return path


def accuracy_by_mmpretrain(tmp_path, checkpoint):
    import mmpretrain

    tool = f'{mmpretrain.__path__[0]}/.mim/tools/test.py'
    output = forked(tool, plain_config(tmp_path), checkpoint, '--work-dir', tmp_path / 'test').stdout
    return accuracy_in(output)


def accuracy_in(output):
    line = [line for line in output.splitlines() if 'accuracy/top1:' in line][-1]
    return float(line.split(' accuracy/top1:')[1].split()[0])


def load_strictly(state):
    model = MODELS.build(plain_student(digits_cfg(ROOT, config='digits/resnet_student.py').model))
    model.load_state_dict(state, strict=True)
    return model


def holds_no_teacher(state):
    teacher = torch.load(ROOT / 'mmkd_plugin/checkpoints/digits/resnet_teacher.pth')['state_dict']
    weights = [value for value in teacher.values() if value.ndim > 1]
    return not any('teacher' in key for key in state) and not any(
        torch.equal(a, b) for a in state.values() for b in weights if a.shape == b.shape
    )


@pytest.mark.parametrize('ema', [False, True], ids=['plain', 'ema'])
def test_loads_strictly_and_scores_the_same_under_mmpretrains_tool(tmp_path, ema):
    cfg = digits_cfg(tmp_path / 'run', epochs=3, log_level='INFO')
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, *([{'type': 'EMAHook', 'momentum': 0.1}] if ema else [])]
    runner = runner_of(cfg)
    runner.train()
    metric = runner.val_loop.run()['accuracy/top1'] if not ema else None
    path = tmp_path / 'run' / 'epoch_3.pth'
    checkpoint = read_checkpoint(str(path))
    states = [checkpoint['state_dict']]
    if ema:
        averaged = {k.removeprefix('module.'): v for k, v in checkpoint['ema_state_dict'].items() if k != 'steps'}
        assert not torch.equal(averaged['head.fc.weight'], states[0]['head.fc.weight'])
        states.append(averaged)
    for state in states:
        load_strictly(state)
        assert holds_no_teacher(state)
    ours = accuracy_in(
        forked('tools/test.py', 'configs/dkd_resnet.py', path, '--work-dir', tmp_path / 't',
                *options(tiny_options(3, **{'model.teacher': 'nowhere.py', 'log_level': 'INFO'}))).stdout
    )  # fmt: skip
    theirs = accuracy_by_mmpretrain(tmp_path, path)
    assert ours == theirs
    if metric is not None:
        assert metric == pytest.approx(theirs, abs=1e-3)


def test_learnable_parts_are_resumed_and_published_away(tmp_path):
    def config(folder):
        cfg = digits_cfg(tmp_path / folder, epochs=4)
        cfg.model.losses = {'loss_hint': {**HINT['loss_hint'], 'on': 'backbone.layer2'}}
        cfg.custom_hooks = [{'type': 'EpochSeedHook'}]
        cfg.default_hooks.checkpoint.max_keep_ckpts = 4
        return cfg

    uninterrupted = runner_of(config('whole'))
    uninterrupted.train()
    cfg = config('resumed')
    cfg.resume, cfg.load_from = True, str(tmp_path / 'whole' / 'epoch_2.pth')
    resumed = runner_of(cfg)
    resumed.train()
    a, b = uninterrupted.model.state_dict(), resumed.model.state_dict()
    assert 'distill.losses.loss_hint.0.regressor.weight' in a
    assert all(torch.equal(a[k], b[k]) for k in a)

    source = tmp_path / 'resumed' / 'epoch_4.pth'
    output = forked('tools/publish_model.py', source, tmp_path / 'slim.pth').stdout
    slim = next(tmp_path.glob('slim-????????.pth'))
    assert str(slim) in output
    published = torch.load(slim, weights_only=True)
    assert set(published) == {'meta', 'state_dict'}
    load_strictly(published['state_dict'])
    assert slim.stat().st_size < source.stat().st_size / 1.5


def test_unreadable_teacher_and_checkpoint_are_told_by_the_tools(tmp_path):
    save_checkpoint({'state_dict': {'x': torch.zeros(1)}}, tmp_path / 'wrong.pth')
    for checkpoint, expected in [
        (tmp_path / 'none.pth', 'does not exist'),
        (tmp_path / 'wrong.pth', 'missing (in the model, not in the file)'),
    ]:
        cfg = digits_cfg(tmp_path / 'x', epochs=1)
        cfg.model.teacher = {'config': 'mmkd_plugin::digits/resnet_teacher.py', 'checkpoint': str(checkpoint)}
        cfg.dump(str(tmp_path / 'c.py'))
        done = forked('tools/train.py', tmp_path / 'c.py', check=False)
        assert done.returncode != 0
        assert expected in done.stdout
        assert 'Epoch(train)' not in done.stdout


def test_distilled_weights_start_another_run(tmp_path):
    runner = runner_of(digits_cfg(tmp_path, epochs=1))
    runner.train()
    cfg = digits_cfg(tmp_path / 'b', epochs=1, config='digits/resnet_student.py')
    cfg.load_from = str(tmp_path / 'epoch_1.pth')
    second = runner_of(copy.deepcopy(cfg))
    second.load_or_resume()
    assert torch.equal(second.model.head.fc.weight, runner.model.head.fc.weight)
