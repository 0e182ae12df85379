"""A knowledge store through the real Runner: what it changes (time), and what not (everything else)."""

import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from mmkd_plugin.files.checkpoint import read_checkpoint, state_dict_of
from mmkd_plugin.store import Header, Records
from mmkd_plugin.teachers import Stored
from tests.end_to_end.helpers import digits_cfg, runner_of, together
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
BY_SAMPLE = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]


def config(folder: Path, store: dict | None, epochs: int = 4, config: str = 'digits/kd_ls_resnet.py', **more: Any):
    """Of four epochs that show two views; without a store, the same views by a live teacher."""
    cfg = digits_cfg(folder, epochs, config, **more)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = [dict(hook) for hook in BY_SAMPLE]
    if store is None:
        cfg.custom_hooks[0].update(by_sample=True, views=2)
    else:
        cfg.model.teacher.store = {'path': str(folder.parent / 'store'), 'views': 2, 'dtype': 'float32', **store}
    return cfg


def train(cfg):
    return runner_of(cfg).train()


def same(model, other):
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A run with a live teacher, one that fills a store, and how often the teacher ran in it."""
    folder = tmp_path_factory.mktemp('runs')
    live = train(config(folder / 'live', None))
    with mock.patch.object(Stored, 'computed', autospec=True, side_effect=Stored.computed) as computed:
        filled = train(config(folder / 'filled', {}))
    return folder, live, filled, computed.call_count


def records_of(folder):
    header = Header.of(folder / 'store')
    assert header is not None
    return Records(folder / 'store', header)


def test_what_fills_it_is_trained_as_with_a_live_teacher(runs):
    _, live, filled, calls = runs
    same(filled, live)
    assert calls == 2 * 4, 'once for each batch of two views'


def test_all_views_are_there(runs):
    records = records_of(runs[0])
    assert records.complete(2)
    assert records.views() == [0, 1]


def test_who_reads_it_needs_no_teacher(runs):
    folder, live, *_ = runs
    with mock.patch.object(Stored, 'wake', side_effect=AssertionError('loaded')):
        cfg = config(folder / 'read', {})
        model = train(cfg)
    same(model, live)
    assert model.distill.teachers['teacher'].asleep


def test_a_broken_promise_is_found(runs):
    """Were the views others than those of the store, the losses would be, too."""
    folder, live, *_ = runs
    cfg = config(folder / 'other', None)
    cfg.custom_hooks[0].view_seed = 1
    with pytest.raises(AssertionError):
        same(train(cfg), live)


def test_another_seed_reads_the_same_store(runs):
    folder, live, *_ = runs
    with mock.patch.object(Stored, 'wake', side_effect=AssertionError('loaded')):
        other = train(config(folder / 'seed', {}, **dict[str, Any]({'randomness.seed': 9})))
    with pytest.raises(AssertionError):
        same(other, live)


def test_another_student_and_loss_read_the_same_store(runs):
    folder = runs[0]
    cfg = config(folder / 'dkd', {}, config='dkd_resnet.py')
    cfg.model.backbone.base_channels = 8
    cfg.model.head.in_channels = 64
    with mock.patch.object(Stored, 'wake', side_effect=AssertionError('loaded')):
        train(cfg)


def test_data_workers_draw_the_same_views(runs):
    folder, live, *_ = runs
    cfg = config(folder / 'workers', {'path': str(folder / 'workers_store')})
    cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
    same(train(cfg), live)
    assert (folder / 'workers_store/view_0001.bin').read_bytes() == (folder / 'store/view_0001.bin').read_bytes()


def test_a_killed_run_resumes_exactly(runs):
    """In the middle of filling; then another, in the middle of reading."""
    folder, live, *_ = runs
    for name, iteration in (('killed', 6), ('again', 10)):
        cfg = config(folder / name, {'path': str(folder / 'killed_store')})
        kill(cfg, iteration)
        same(resumed(cfg), live)


def test_weight_zero_is_plain_training(runs):
    folder = runs[0]
    zero = config(folder / 'zero', {'path': str(folder / 'zero_store')}, config='kd_resnet.py')
    zero.model.losses.loss_kd.loss_weight = 0.0
    plain = config(folder / 'plain', None, config='digits/resnet_student.py')
    plain.custom_hooks = plain.custom_hooks[:1]
    expected = train(plain).state_dict()
    got = train(zero).state_dict()
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert records_of(folder).views()
    assert not list((folder / 'zero_store').glob('view_*')), 'nothing was asked, and nothing kept'


def test_a_flipped_byte_is_mended(runs):
    folder, live, *_ = runs
    shutil.copytree(folder / 'store', folder / 'flipped_store')
    values = folder / 'flipped_store/view_0001.bin'
    raw = bytearray(values.read_bytes())
    raw[100] ^= 1
    values.write_bytes(raw)
    model = train(config(folder / 'flipped', {'path': str(folder / 'flipped_store')}))
    same(model, live)
    assert not model.distill.teachers['teacher'].asleep
    assert values.read_bytes() == (folder / 'store/view_0001.bin').read_bytes()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'train_dataloader.dataset.per_class': 5}, r'data\.entries: 40 then, 50 now'),
        ({'train_dataloader.dataset.label_noise': 0.1}, r'data\.digest'),
        ({'train_dataloader.dataset.pipeline.0.padding': 3}, r'pipeline\[0\]\[0\]\.padding: 2 then, 3 now'),
        ({'model.teacher.optimize': False}, 'teacher.optimize: true then, false now'),
        ({'model.teacher.checkpoint': 'other.pth'}, 'teacher.weights: "file .* then, "file'),
    ],
)
def test_what_changed_is_said(runs, options, message):
    folder = runs[0]
    if 'model.teacher.checkpoint' in options:
        source = runs[1].distill.teachers['teacher']._spec.checkpoint
        state = state_dict_of(read_checkpoint(source), source)
        torch.save({name: value * 1.001 for name, value in state.items()}, folder / 'other.pth')
        options = {'model.teacher.checkpoint': str(folder / 'other.pth')}
    with pytest.raises(ValueError, match=message):
        train(config(folder / 'changed', {}, **options))


def test_of_the_largest_scores_who_fills_and_who_reads_train_alike(tmp_path):
    store = {'keep': 3, 'dtype': 'float16', 'path': str(tmp_path / 'few')}
    first = train(config(tmp_path / 'first', store, config='kd_resnet.py'))
    second = train(config(tmp_path / 'second', store, config='kd_resnet.py'))
    same(first, second)
    assert second.distill.teachers['teacher'].asleep


def test_with_kcd_fewer_samples_and_no_teacher(runs):
    """The dropped ones are not asked for; what is shown was kept."""
    folder = runs[0]
    cfg = config(folder / 'kcd', {})
    cfg.custom_hooks.append({'type': 'KCDHook', 'interval': 1, 'mixing': None, 'table': False})
    with mock.patch.object(Stored, 'wake', side_effect=AssertionError('loaded')):
        train(cfg)
    cfg = config(folder / 'kcd_fills', {'path': str(folder / 'kcd_store')}, epochs=2)
    cfg.custom_hooks.append({'type': 'KCDHook', 'interval': 1, 'mixing': None, 'table': False, 'final_ratio': 0.5})
    train(cfg)
    header = Header.of(folder / 'kcd_store')
    assert header is not None
    records = Records(folder / 'kcd_store', header)
    assert [int(records.written(view).sum()) for view in range(2)] == [40, 20]


def test_a_teacher_that_sleeps_is_not_evaluated_unless_it_must_be_good(runs):
    folder = runs[0]
    for at_least, asleep in ((None, True), ({'accuracy/top1': 50.0}, False)):
        cfg = digits_cfg(folder / f'eval{asleep}', 4, 'digits/kd_ls_resnet.py')
        cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'TeacherEvalHook', 'at_least': at_least}]
        cfg.model.teacher.store = {'path': str(folder / 'store'), 'views': 2, 'dtype': 'float32'}
        runner = runner_of(cfg)
        model = runner.train()
        same(model, runs[1])
        assert model.distill.teachers['teacher'].asleep is asleep
        assert ('val/teacher/accuracy/top1' in runner.message_hub.log_scalars) is not asleep


SCRIPT = """
import sys, torch
from mmengine.config import Config
from mmkd_plugin.launch import _run
cfg = Config.fromfile(sys.argv[1])
cfg.launcher = 'pytorch'
_run(cfg, 'train')
"""


def test_two_processes_fill_and_read_one_store(tmp_path):
    cfg = config(tmp_path / 'run', {'path': str(tmp_path / 'shared')})
    cfg.train_dataloader.dataset.per_class = 4
    cfg.default_hooks.checkpoint = {'type': 'CheckpointHook', 'interval': 4}
    cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'script.py').write_text(SCRIPT)
    states = []
    for number in range(2):
        text = (tmp_path / 'config.py').read_text().replace(str(tmp_path / 'run'), str(tmp_path / f'run{number}'))
        (tmp_path / f'config{number}.py').write_text(text)
        for process in together(tmp_path / 'script.py', tmp_path / f'config{number}.py'):
            assert process.returncode == 0, process.stdout[-3000:]
        states.append(torch.load(tmp_path / f'run{number}/epoch_4.pth', weights_only=False)['state_dict'])
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    header = Header.of(tmp_path / 'shared')
    assert header is not None
    records = Records(tmp_path / 'shared', header)
    assert records.complete(2)
    assert all(len(records.torn(view)) == 0 for view in range(2))
