"""A knowledge store through the real Runner: what it changes (time), and what not (everything else)."""

from pathlib import Path
from unittest import mock

import pytest
import torch

from mmkd_plugin.store import Header, Records
from mmkd_plugin.teachers import Stored
from tests.end_to_end.helpers import digits_cfg, runner_of

pytestmark = pytest.mark.openmmlab
BY_SAMPLE = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]


def config(folder: Path, store: dict | None, epochs: int = 4, config: str = 'digits/kd_ls_resnet.py', **more):
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
