"""Resuming KCD: exactly, and only with the data, the options and the rounds that the checkpoint's values belong to."""

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.registry import DefaultScope

from mmkd_plugin.datasets.fingerprint import fingerprint
from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.kcd import hook as kcd_hook
from mmkd_plugin.kcd.resume_check import SHARED
from tests.end_to_end.helpers import runner_of
from tests.kcd.test_hook import config, hook_of, log_of, trained

pytestmark = pytest.mark.openmmlab


@pytest.fixture(scope='module')
def first(tmp_path_factory):
    """The folder of a finished run with its checkpoints."""
    folder = tmp_path_factory.mktemp('first')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        trained(config(folder))
    return folder / 'run'


def resuming(tmp_path, checkpoint, **more):
    cfg = config(tmp_path, **more)
    cfg.resume, cfg.load_from = True, str(checkpoint)
    return cfg


@pytest.mark.parametrize(
    'hook',
    [
        {'cumulative': True},
        {'value': 'random'},
        {'value': 'forgetting', 'dropped_value': 'pass'},
        {'value': 'kl', 'dropped_value': 'aged'},
    ],
    ids=lambda hook: next(iter(hook.values())),
)
def test_goes_on_exactly(tmp_path, hook):
    whole = trained(config(tmp_path, 'whole', hook=hook))
    for epoch in (1, 2, 4):
        checkpoint = tmp_path / 'whole' / f'epoch_{epoch}.pth'
        resumed = trained(resuming(tmp_path / str(epoch), checkpoint, hook=hook))
        a, b = hook_of(whole), hook_of(resumed)
        assert (a.kept.tolist(), a.pace.saved) == (b.kept.tolist(), b.pace.saved)
        assert [a.recipes(i) for i in range(40)] == [b.recipes(i) for i in range(40)]
        assert (a.looked, a.dropped.level) == (b.looked, b.dropped.level)
        torch.testing.assert_close(a.table.state_dict(), b.table.state_dict(), rtol=0, atol=0)
        x, y = whole.model.state_dict(), resumed.model.state_dict()
        assert all(torch.equal(x[key], y[key]) for key in x)
        assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()


def test_chance_goes_on_with_the_seed_that_it_had(tmp_path):
    """A run without a seed in its config draws one, which mmengine keeps."""
    hook = {'value': 'random'}
    whole = trained(config(tmp_path, 'whole', hook=hook, **{'randomness.seed': None}))
    cfg = resuming(tmp_path, tmp_path / 'whole/epoch_3.pth', hook=hook, **{'randomness.seed': None})
    assert hook_of(trained(cfg)).kept.tolist() == hook_of(whole).kept.tolist()


def test_state_is_plain_data(first):
    state = read_checkpoint(str(first / 'epoch_6.pth'))['kcd']
    assert set(state) == {
        'table', 'kept', 'recipes', 'rounds', 'counts', 'saved', 'looked', 'level', 'options', 'data',
    }  # fmt: skip
    assert (state['rounds'], state['counts']) == ([2, 4], [30, 20])
    assert state['options'] == {
        'interval': 2, 'begin': 0, 'final_ratio': 0.5, 'alpha': 0.03, 'epsilon_max': 0.3, 'keep_schedule': 'linear',
        'rank_over': 'all', 'mixing': 'convex', 'value': 'entropy', 'dropped_value': 'last',
        'cumulative': False, 'official_schedule': False,
        'logits': 'head.fc', 'write_table': True,
    }  # fmt: skip
    assert set(SHARED) <= set(state['options'])


def test_weights_alone_start_anew(tmp_path, first):
    cfg = config(tmp_path, epochs=3)
    cfg.load_from = str(first / 'epoch_6.pth')
    assert hook_of(trained(cfg)).table.count.max() == 3


def test_checkpoint_without_state(tmp_path):
    trained(config(tmp_path, 'plain', epochs=3, hook=False))
    with pytest.raises(ValueError, match='written without KCDHook'):
        trained(resuming(tmp_path, tmp_path / 'plain/epoch_2.pth'))


@pytest.mark.parametrize('change', [{'interval': 1}, {'final_ratio': 0.9}, {'begin': 1}])
def test_other_rounds(tmp_path, first, change):
    with pytest.raises(ValueError, match=r'after the epochs \[2, 4\], which kept \[30, 20\]; this run'):
        trained(resuming(tmp_path, first / 'epoch_4.pth', hook=change))


@pytest.mark.parametrize('epoch', [5, 6])
def test_a_longer_run_goes_on(tmp_path, first, epoch):
    """With the round that the shorter one, ending after epoch 6, did not do."""
    hook = {'keep_schedule': [0.75, 0.5, 0.25]}
    runner = trained(resuming(tmp_path, first / f'epoch_{epoch}.pth', epochs=8, hook=hook))
    made = hook_of(runner)
    assert (made.rounds, made.counts, len(made.kept), made.round) == ([2, 4, 6], [30, 20, 10], 10, 3)
    assert runner.iter == runner.max_iters == 10 + 8 + 6 + 4
    assert made.pace.saved == 12
    assert (tmp_path / 'run/kcd/round_3.csv').is_file()


def test_a_round_that_would_never_come(tmp_path):
    trained(config(tmp_path, 'before', hook={'interval': 4}))
    cfg = resuming(tmp_path, tmp_path / 'before/epoch_3.pth', hook={'interval': 2})
    with pytest.raises(ValueError, match='is planned after epoch 2, but 3 epochs are done, and it would never come'):
        trained(cfg)


@pytest.mark.parametrize(
    ('change', 'then', 'now'),
    [
        ({'value': 'random'}, "value='entropy'", "value='random'"),
        ({'dropped_value': 'aged'}, "dropped_value='last'", "dropped_value='aged'"),
        ({'mixing': 'additive'}, "mixing='convex'", "mixing='additive'"),
        ({'mixing': None}, "mixing='convex'", 'mixing=None'),
        (
            {'alpha': 0.1, 'epsilon_max': 0.2},
            'alpha=0.03, epsilon_max=0.3',
            'alpha=0.1, epsilon_max=0.2',
        ),
        ({'rank_over': 'kept'}, "rank_over='all'", "rank_over='kept'"),
        ({'cumulative': True}, 'cumulative=False', 'cumulative=True'),
        ({'logits': 'head'}, "logits='head.fc'", "logits='head'"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else '',
)
def test_other_options(tmp_path, first, change, then, now):
    with pytest.raises(ValueError) as error:
        trained(resuming(tmp_path, first / 'epoch_4.pth', hook=change))
    assert f'was written with {then}; this run has {now}. Resume with the options of then' in str(error.value)


def test_options_that_mean_the_same(tmp_path, first):
    hook = {'logits': 'head.fc', 'table': False, 'keep_schedule': [0.75, 0.5]}
    assert hook_of(trained(resuming(tmp_path, first / 'epoch_4.pth', hook=hook))).round == 2


def test_by_hand(tmp_path, first):
    runner = runner_of(config(tmp_path))
    runner.resume(str(first / 'epoch_3.pth'))
    runner.train()
    # the weights are another matter: mmengine initialises them once more
    assert hook_of(runner).round == 2
    assert hook_of(runner).table.count.max() == 6
    assert runner.iter == runner.max_iters


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'per_class': 5}, 'values of 40 samples given, expected 50'),
        ({'indices': list(range(40))[::-1]}, 'as many entries as those of the checkpoint, but .* another order'),
        ({'per_class': 5, 'indices': 40}, 'but other images'),
    ],
)
def test_other_data(tmp_path, first, change, match):
    options = {f'train_dataloader.dataset.{name}': value for name, value in change.items()}
    with pytest.raises(ValueError, match=match):
        trained(resuming(tmp_path, first / 'epoch_2.pth', **options))


def test_a_checkpoint_of_an_earlier_version(tmp_path, first):
    checkpoint = torch.load(first / 'epoch_4.pth', weights_only=False)
    for name in ('options', 'data', 'looked', 'level'):
        del checkpoint['kcd'][name]
    torch.save(checkpoint, tmp_path / 'old.pth')
    runner = trained(resuming(tmp_path, tmp_path / 'old.pth', hook={'alpha': 0.1}))
    assert runner.iter == runner.max_iters
    assert 'did not note its data and options: they could not be compared' in log_of(tmp_path)


def test_annotations_are_read_once(tmp_path, first, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(kcd_hook, 'fingerprint', lambda dataset: (asked.append(len(dataset)), fingerprint(dataset))[1])  # type: ignore[func-returns-value]
    trained(resuming(tmp_path, first / 'epoch_2.pth'))  # and it writes four checkpoints
    assert asked == [40]


class Listed(BaseDataset):
    def __init__(self, rows: Any, **options: Any):
        self.rows = rows
        super().__init__(pipeline=[], **options)

    def load_data_list(self):
        return self.rows


def images(root, *names, labels=(3, 5, 5), **more):
    rows = [
        {'img_path': f'{root}/{name}', 'gt_label': label, **more} for name, label in zip(names, labels, strict=True)
    ]
    return fingerprint(Listed(rows, data_root=root))


def test_the_same_data_elsewhere():
    names = ('train/a/1.png', 'train/b/2.png', 'train/b/1.png')
    here = images('data/set', *names)
    assert here == images('/mnt/other', *names)
    assert here == images('data/set', *names, width=3), 'not what it is for'
    assert here == images('data/set/', *names)
    assert here != images('data/set', *names[::-1], labels=(5, 5, 3))
    assert here != images('data/set', *names, labels=(3, 5, 6))
    assert here != images('data/set', *names[:2], 'train/b/3.png')
    assert here != images('data/set', *names[:2], 'train/c/1.png')
    flat = ('1.png', '2.png', '3.png')
    assert images('data/set', *flat) == images('/mnt/other', *flat)


def test_entries_do_not_run_together():
    assert images('d', 'a 3\n1 b', labels=(5,)) != images('d', 'a', 'b', labels=(3, 5))


def test_images_without_a_path_and_other_labels():
    def one(pixel, **labels):
        image = np.full((2, 3, 1), pixel, np.uint8)
        return fingerprint(Listed([{'img': image, **labels}]))

    assert one(1, gt_label=2) == one(1, gt_label=2)
    kinds = [one(1, gt_label=2), one(2, gt_label=2), one(1, gt_label=[2, 3]), one(1, gt_label=np.array([2, 4])), one(1)]
    boxes = [one(1, instances=[{'bbox_label': label, 'bbox': [0, 0, 1, 1]}]) for label in (0, 1)]
    assert len({*kinds, *boxes}) == 7
    assert one(1, gt_label=[2, 3]) == one(1, gt_label=np.array([2, 3]))


def test_wrappers_count_each_of_their_entries():
    a, b = (Listed([{'img_path': f'r/{name}', 'gt_label': 1}], data_root='r') for name in 'ab')
    together = Listed([{'img_path': f'r/{name}', 'gt_label': 1} for name in 'ab'], data_root='r')
    assert fingerprint(ConcatDataset([a, b])) == fingerprint(together)
    assert fingerprint(ConcatDataset([b, a])) != fingerprint(together)
    assert fingerprint(RepeatDataset(a, 2)) not in (fingerprint(a), fingerprint(together))
