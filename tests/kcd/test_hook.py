"""KCDHook through the real Runner, on 40 digits."""

import math
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_plugin.datasets import INDEX, IndexedDataset, rewrapped_loader
from mmkd_plugin.kcd import KCDHook
from mmkd_plugin.kcd.dropped import gathered
from mmkd_plugin.kcd.observer import _mean_over_rois
from mmkd_plugin.kcd.report import Report
from mmkd_plugin.kcd.valuation import keep_counts, random_scores, rank
from tests.end_to_end.helpers import digits_cfg, runner_of

pytestmark = pytest.mark.openmmlab
HOOK = {'type': 'KCDHook', 'interval': 2, 'final_ratio': 0.5, 'alpha': 0.03, 'epsilon_max': 0.3}
EPOCHS = 6


def config(tmp_path, name='run', epochs=EPOCHS, hook=None, **more):
    cfg = digits_cfg(tmp_path / name, epochs, 'kcd_resnet.py', **{'train_dataloader.batch_size': 8, **more})
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, *([] if hook is False else [{**HOOK, **(hook or {})}])]
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.model.teacher.optimize = False  # trying whether it may be folded takes a third of such a run
    return cfg


def hook_of(runner: Runner) -> KCDHook:
    return next(hook for hook in runner.hooks if isinstance(hook, KCDHook))


def trained(cfg):
    runner = runner_of(cfg)
    runner.train()
    return runner


def log_of(tmp_path, name='run'):
    return next((tmp_path / name).glob('*/*.log')).read_text()


class Watch(Hook):
    """Lengths of epochs, and the learning rate after each iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.lengths, self.rates = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.lengths[len(self.lengths) - 1 if batch_idx else len(self.lengths) :] = [batch_idx + 1]
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])


def watched(runner):
    runner.register_hook(watch := Watch())
    return watch.lengths, watch.rates


class TestRounds:
    def test_epochs_shrink_as_planned(self, tmp_path):
        lengths, rates = watched(runner := runner_of(config(tmp_path, log_level='INFO')))
        runner.train()
        hook = hook_of(runner)
        assert hook.rounds == [2, 4]
        assert hook.counts == keep_counts(40, 2, 0.5) == [30, 20]
        assert lengths == [5, 5, 4, 4, 3, 3]
        assert runner.iter == runner.max_iters == sum(lengths)
        assert hook.pace.saved == 6
        # a schedule by iteration has the shape over epochs that it has in a full run
        full, expected = watched(plain := runner_of(config(tmp_path, 'plain', hook=False)))
        plain.train()
        assert full == [5] * EPOCHS
        assert [rates[i] for i in np.cumsum(lengths) - 1] == [expected[i] for i in np.cumsum(full) - 1]
        text = log_of(tmp_path)
        assert 'KCD round 2 of 2, after epoch 4: 20 of 40 kept, 9 of them mixed, 20 dropped; value at quant' in text
        assert '; 2 iterations saved so far' in text
        assert 'eta: 0:00:00' in [line for line in text.splitlines() if 'Epoch(train)' in line][-1]

    def test_values_are_the_running_mean_of_entropies(self, tmp_path):
        runner = runner_of(config(tmp_path, epochs=3))
        logits, batches = [], []
        runner.model.head.fc.register_forward_hook(lambda m, _i, o: logits.append(o.detach()) if m.training else None)
        runner.model.data_preprocessor.register_forward_pre_hook(
            lambda _m, args: batches.append([s.metainfo[INDEX] for s in args[0]['data_samples']])
        )
        runner.train()
        sums: dict[int, list[float]] = {}
        for rows, indices in zip(logits[-len(batches) :], batches, strict=True):
            for row, index in zip(rows.double().tolist(), indices, strict=True):
                p = [math.exp(z - max(row)) for z in row]
                p = [x / sum(p) for x in p]
                sums.setdefault(index, []).append(-sum(x * math.log(x) for x in p))
        table = hook_of(runner).table
        assert sorted(sums) == list(range(40))
        assert [len(sums[i]) for i in range(40)] == table.count.tolist()
        expected = np.array([sum(sums[i]) / len(sums[i]) for i in range(40)])
        assert np.abs(expected - table.mean).max() < 1e-4

    def test_the_best_are_kept_and_the_last_of_them_mixed(self, tmp_path, monkeypatch):
        runner = runner_of(config(tmp_path, epochs=4))
        hook = hook_of(runner)
        seen = []
        monkeypatch.setattr(
            Report, 'write', lambda _, hook, result, epoch: seen.append((hook.table.scores(0.03), result))
        )
        runner.train()
        ((scores, result),) = seen  # epochs 1 and 2, then one round
        order = sorted(range(40), key=lambda i: (-scores[i], i))
        assert result.high.tolist() == order[:0]
        assert result.low.tolist() == order[:20]
        assert result.partners.tolist() == order[20:]
        assert hook.kept.tolist() == sorted(order[:20])
        recipe = hook.recipes(order[19])
        assert hook.recipes(order[0]).mixes == (), 'mixed with weight 0'
        assert recipe.mixes[0][0].point == order[39]
        assert recipe.mixes[0][1] == pytest.approx(0.3 * 19 / 20)

    def test_table_for_each_round(self, tmp_path):
        runner = trained(config(tmp_path))
        rows = (tmp_path / 'run/kcd/round_2.csv').read_text().splitlines()
        assert rows[0] == 'sample,value,count,set,path'
        assert len(rows) == 41
        sets = [row.split(',')[3] for row in rows[1:]]
        assert (sets.count('high'), sets.count('low'), sets.count('dropped')) == (10, 10, 20)
        assert [i for i, name in enumerate(sets) if name != 'dropped'] == hook_of(runner).kept.tolist()
        assert rows[1].endswith(',digits/0000')

    @pytest.mark.parametrize(
        ('hook', 'rounds', 'counts'),
        [
            ({'official_schedule': True}, [2, 4, 6], [34, 27, 20]),
            ({'begin': 1}, [3, 5], [30, 20]),
            ({'keep_schedule': 'geometric'}, [2, 4], [28, 20]),
            ({'keep_schedule': [0.9, 0.25]}, [2, 4], [36, 10]),
        ],
    )
    def test_schedules(self, tmp_path, hook, rounds, counts):
        runner = trained(config(tmp_path, hook=hook))
        made = hook_of(runner)
        assert (made.rounds, made.counts) == (rounds, counts)
        assert len(made.kept) == counts[-1]
        assert runner.iter == runner.max_iters

    def test_ranking_over_kept_points_never_takes_back(self, tmp_path, monkeypatch):
        cfg = config(tmp_path, epochs=9, hook={'rank_over': 'kept', 'final_ratio': 0.3, 'interval': 1})
        runner = runner_of(cfg)
        kept: list[set[int]] = []
        monkeypatch.setattr(Report, 'write', lambda _, hook, result, epoch: kept.append(set(hook.kept.tolist())))
        runner.train()
        assert len(kept) == 8
        assert all(later < earlier for earlier, later in pairwise(kept))

    @pytest.mark.parametrize(
        ('mixing', 'cumulative'), [(None, False), ('additive', False), ('convex', False), ('convex', True)]
    )
    def test_mixing(self, tmp_path, mixing, cumulative):
        hook = hook_of(trained(config(tmp_path, hook={'mixing': mixing, 'cumulative': cumulative})))
        depths = {len(hook.recipes(i).mixes) for i in range(40)}
        assert depths == ({0} if mixing is None else {0, 1, 2} if cumulative else {0, 1})

    def test_keeping_everything_is_plain_distillation(self, tmp_path):
        a = trained(config(tmp_path, hook={'final_ratio': 1.0})).model.state_dict()
        b = trained(config(tmp_path, 'plain', hook=False)).model.state_dict()
        assert all(torch.equal(a[key], b[key]) for key in b)

    def test_no_last_batch_of_one(self, tmp_path):
        """33 images are four batches of 8 and one of 1."""
        runner = runner_of(config(tmp_path, hook={'keep_schedule': [0.825, 0.5]}))
        lengths, _ = watched(runner)
        seen: list[list[int]] = []
        runner.model.data_preprocessor.register_forward_pre_hook(
            lambda _m, args: seen.append([s.metainfo[INDEX] for s in args[0]['data_samples']])
        )
        runner.train()
        assert hook_of(runner).counts == [33, 20]
        assert lengths == [5, 5, 4, 4, 3, 3]
        assert runner.iter == runner.max_iters == 24
        assert hook_of(runner).pace.saved == 6
        assert 1 not in map(len, seen)
        third, fourth = (list(chain(*seen[end - 4 : end])) for end in (-10, -6))
        assert len(third) == len(fourth) == 32
        assert set(third) != set(fourth), 'the same image is left out each time'

    def test_a_last_batch_of_one_that_was_there_before(self, tmp_path):
        """40 images are three batches of 13 and one of 1, 27 are two and one."""
        cfg = config(tmp_path, hook={'keep_schedule': [27 / 40, 0.5]}, **{'train_dataloader.batch_size': 13})
        lengths, _ = watched(runner := runner_of(cfg))
        runner.train()
        assert lengths == [4, 4, 3, 3, 2, 2]


class TestChance:
    CHANCE = {'value': 'random'}

    def test_training_draws_what_it_draws_without(self, tmp_path):
        plain = trained(config(tmp_path, 'plain', hook=False))
        state = torch.get_rng_state()
        other = trained(config(tmp_path, hook={'final_ratio': 1.0, **self.CHANCE}))
        assert torch.equal(torch.get_rng_state(), state)
        a, b = plain.model.state_dict(), other.model.state_dict()
        assert all(torch.equal(a[key], b[key]) for key in a)

    def test_every_round_draws_anew_and_the_table_has_entropies(self, tmp_path, monkeypatch):
        kept = []
        monkeypatch.setattr(Report, 'write', lambda _, hook, result, epoch: kept.append(hook.kept.tolist()))
        table = hook_of(trained(config(tmp_path, epochs=6, hook=self.CHANCE))).table
        expected = [sorted(rank(random_scores(40, 3, i))[:keep].tolist()) for i, keep in enumerate((30, 20))]
        assert kept == expected
        assert not set(kept[1]) < set(kept[0]), 'nothing returned'
        chance, entropy = (
            hook_of(trained(config(tmp_path, name, 2 + 1, {'final_ratio': 1.0, 'value': name}))).table
            for name in ('random', 'entropy')
        )
        np.testing.assert_array_equal(chance.mean, entropy.mean)
        assert table.mean.max() > 1, 'entropies of ten classes'

    def test_the_same_on_processes_with_other_seeds(self, tmp_path, monkeypatch):
        runner = runner_of(config(tmp_path, hook=self.CHANCE))
        hook = hook_of(runner)
        hook.size, hook.round = 40, 1
        monkeypatch.setattr('mmkd_plugin.kcd.hook.all_gather_object', lambda own: [8, own])
        np.testing.assert_array_equal(hook._scores(runner), random_scores(40, 8, 1))


class Index(Hook):
    """Another hook that wants to know samples."""

    priority = 'HIGH'

    def before_run(self, runner):
        loader = runner.train_loop.dataloader
        runner.train_loop.dataloader = rewrapped_loader(loader, IndexedDataset(loader.dataset))


def test_data_that_carry_an_index_already(tmp_path):
    plain = trained(config(tmp_path, 'plain'))
    runner = runner_of(config(tmp_path))
    runner.register_hook(Index())
    runner.train()
    dataset = runner.train_dataloader.dataset
    assert isinstance(dataset, IndexedDataset)
    assert type(dataset.dataset).__name__ == 'Digits'
    assert hook_of(runner).kept.tolist() == hook_of(plain).kept.tolist()
    a, b = plain.model.state_dict(), runner.model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


class TestProcesses:
    def test_same_partition_as_one_process(self, tmp_path, monkeypatch):
        """Two processes saw half each, and padding twice."""
        runner = runner_of(config(tmp_path, epochs=3, hook={'mixing': None}))
        hook = hook_of(runner)
        runner.train()
        indices, values = np.arange(39), np.linspace(2, 0.1, 39)[np.random.default_rng(0).permutation(39)]
        halves = [(indices[0::2], values[0::2]), (np.append(indices[1::2], 0), np.append(values[1::2], values[0]))]
        monkeypatch.setattr('mmkd_plugin.kcd.dropped.all_gather_object', lambda own: halves)
        together = gathered(hook.observer.take())
        np.testing.assert_array_equal(together[0], indices)
        np.testing.assert_array_equal(together[1], values)


def test_testing_after_training_on_the_same_runner(tmp_path):
    cfg = digits_cfg(tmp_path / 'run', 4, 'kcd_resnet.py')
    cfg.custom_hooks = [HOOK]
    runner = trained(cfg)
    kept = hook_of(runner).kept.tolist()
    assert 'accuracy/top1' in runner.test()
    assert hook_of(runner).kept.tolist() == kept


def test_testing_leaves_it_alone(tmp_path):
    trained(config(tmp_path))
    cfg = digits_cfg(tmp_path / 'test', 2, 'kcd_resnet.py')
    cfg.load_from = str(tmp_path / 'run/epoch_6.pth')
    assert 'accuracy/top1' in runner_of(cfg).test()


def test_mean_over_rois():
    rois = torch.tensor([[0.0, 1, 1, 2, 2], [2, 1, 1, 2, 2], [0, 0, 0, 1, 1]])
    assert _mean_over_rois(torch.tensor([1.0, 5.0, 2.0]), rois, 3).tolist() == [1.5, math.inf, 5.0]
