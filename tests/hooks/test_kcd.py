"""KCDHook through the real Runner, on 40 digits."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_plugin.checkpoint import read_checkpoint
from mmkd_plugin.hooks import KCDHook
from mmkd_plugin.hooks.kcd_observer import _mean_over_rois
from mmkd_plugin.hooks.kcd_report import Report
from mmkd_plugin.valuation import VALUES, keep_counts
from tests.end_to_end.helpers import digits_cfg, runner_of

pytestmark = pytest.mark.openmmlab
HOOK = {'type': 'KCDHook', 'interval': 2, 'final_ratio': 0.5, 'alpha': 0.03, 'epsilon_max': 0.3}
EPOCHS = 6


def config(tmp_path, name='run', epochs=EPOCHS, hook=None, **more):
    cfg = digits_cfg(tmp_path / name, epochs, 'kcd_resnet.py', **{'train_dataloader.batch_size': 8, **more})
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, *([] if hook is False else [{**HOOK, **(hook or {})}])]
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
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
            lambda _m, args: batches.append([s.metainfo['kcd_index'] for s in args[0]['data_samples']])
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


class TestResuming:
    @pytest.mark.parametrize('epoch', [1, 2, 4])
    def test_goes_on_exactly(self, tmp_path, epoch):
        hook = {'cumulative': True}
        whole = trained(config(tmp_path, 'whole', hook=hook))
        cfg = config(tmp_path, 'resumed', hook=hook)
        cfg.resume, cfg.load_from = True, str(tmp_path / 'whole' / f'epoch_{epoch}.pth')
        resumed = trained(cfg)
        a, b = hook_of(whole), hook_of(resumed)
        assert (a.kept.tolist(), a.pace.saved) == (b.kept.tolist(), b.pace.saved)
        assert [a.recipes(i) for i in range(40)] == [b.recipes(i) for i in range(40)]
        np.testing.assert_array_equal(a.table.mean, b.table.mean)
        x, y = whole.model.state_dict(), resumed.model.state_dict()
        assert all(torch.equal(x[key], y[key]) for key in x)
        assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()

    def test_state_is_plain_data(self, tmp_path):
        trained(config(tmp_path))
        state = read_checkpoint(str(tmp_path / 'run/epoch_6.pth'))['kcd']
        assert set(state) == {'table', 'kept', 'recipes', 'rounds', 'counts', 'saved'}
        assert (state['rounds'], state['counts']) == ([2, 4], [30, 20])

    def test_weights_alone_start_anew(self, tmp_path):
        trained(config(tmp_path, 'first'))
        cfg = config(tmp_path, 'second', epochs=3)
        cfg.load_from = str(tmp_path / 'first/epoch_6.pth')
        assert hook_of(trained(cfg)).table.count.max() == 3

    def test_checkpoint_without_state(self, tmp_path):
        trained(config(tmp_path, 'plain', epochs=3, hook=False))
        cfg = config(tmp_path, 'run')
        cfg.resume, cfg.load_from = True, str(tmp_path / 'plain/epoch_2.pth')
        with pytest.raises(ValueError, match='written without KCDHook'):
            trained(cfg)

    @pytest.mark.parametrize('change', [{'interval': 1}, {'final_ratio': 0.9}, {'begin': 1}])
    def test_other_rounds(self, tmp_path, change):
        trained(config(tmp_path, 'first'))
        cfg = config(tmp_path, 'run', hook=change)
        cfg.resume, cfg.load_from = True, str(tmp_path / 'first/epoch_4.pth')
        with pytest.raises(ValueError, match=r'after the epochs \[2, 4\], which kept \[30, 20\]; this run'):
            trained(cfg)

    def test_by_hand(self, tmp_path):
        trained(config(tmp_path, 'whole'))
        runner = runner_of(config(tmp_path, 'resumed'))
        runner.resume(str(tmp_path / 'whole/epoch_3.pth'))
        runner.train()
        # the weights are another matter: mmengine initialises them once more
        assert hook_of(runner).round == 2
        assert hook_of(runner).table.count.max() == 6
        assert runner.iter == runner.max_iters

    def test_other_data(self, tmp_path):
        trained(config(tmp_path, 'first'))
        cfg = config(tmp_path, 'run', **{'train_dataloader.dataset.per_class': 5})
        cfg.resume, cfg.load_from = True, str(tmp_path / 'first/epoch_2.pth')
        with pytest.raises(ValueError, match='40'):
            trained(cfg)


class TestProcesses:
    def test_same_partition_as_one_process(self, tmp_path, monkeypatch):
        """Two processes saw half each, and padding twice."""
        runner = runner_of(config(tmp_path, epochs=3, hook={'mixing': None}))
        hook = hook_of(runner)
        runner.train()
        indices, values = np.arange(39), np.linspace(2, 0.1, 39)[np.random.default_rng(0).permutation(39)]
        halves = [(indices[0::2], values[0::2]), (np.append(indices[1::2], 0), np.append(values[1::2], values[0]))]
        monkeypatch.setattr('mmkd_plugin.hooks.kcd.all_gather_object', lambda own: halves)
        gathered = hook._gather()
        np.testing.assert_array_equal(gathered[0], indices)
        np.testing.assert_array_equal(gathered[1], values)


class TestMistakes:
    @pytest.mark.parametrize(
        ('options', 'match'),
        [
            ({'interval': 0}, 'interval=0, begin=0 given'),
            ({'interval': 2.5}, r'interval=2\.5'),
            ({'mixing': 'cutmix'}, r"mixing='cutmix' given, expected one of None, 'convex', 'additive'"),
            ({'rank_over': 'some'}, "rank_over='some' given"),
            ({'value': 'age'}, r"value='age' given, expected one of 'entropy'"),
            ({'epsilon_max': 1.5}, r'epsilon_max=1\.5'),
            ({'alpha': -1}, 'alpha=-1'),
        ],
    )
    def test_told_when_built(self, options, match):
        with pytest.raises(ValueError, match=match):
            KCDHook(**options)

    @pytest.mark.parametrize(
        ('change', 'error', 'match'),
        [
            ({'custom_hooks.1.interval': 6}, ValueError, 'leave no round in 6 epochs'),
            ({'custom_hooks.1.final_ratio': 0.0}, ValueError, 'ratio'),
            ({'custom_hooks.1.logits': 'head.fx'}, ValueError, "no module 'head.fx'"),
            ({'train_dataloader.sampler': {'type': 'InfiniteSampler'}}, TypeError, 'has the sampler InfiniteSampler'),
            ({'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 9}}, RuntimeError, 'is a IterBasedTrainLoop'),
            ({'custom_hooks.1.logits': 'backbone.layer4'}, ValueError, 'expected'),
        ],
    )
    def test_told_before_training(self, tmp_path, change, error, match):
        cfg = config(tmp_path)
        if 'train_cfg' in change:
            cfg.train_cfg, cfg.param_scheduler = change.pop('train_cfg'), []
        cfg.merge_from_dict(change)
        with pytest.raises(error, match=match):
            trained(cfg)

    def test_mixed_batches(self, tmp_path):
        cfg = config(tmp_path)
        cfg.model.train_cfg = {'augments': {'type': 'Mixup', 'alpha': 0.8}}
        with pytest.raises(ValueError, match='data preprocessor mixes images'):
            trained(cfg)

    def test_batches_larger_than_what_is_kept(self, tmp_path):
        cfg = config(tmp_path, **{'train_dataloader.batch_size': 32})
        cfg.train_dataloader.drop_last = True
        with pytest.raises(ValueError, match='an epoch of 30 kept samples has no whole batch'):
            trained(cfg)

    def test_twice(self, tmp_path):
        cfg = config(tmp_path)
        cfg.custom_hooks = [HOOK, HOOK]
        with pytest.raises(RuntimeError, match='twice'):
            trained(cfg)

    def test_classifier_that_does_not_run(self, tmp_path):
        cfg = config(tmp_path, hook={'logits': 'head.aux'})
        runner = runner_of(cfg)
        runner.model.head.aux = torch.nn.Linear(2, 2)
        with pytest.raises(RuntimeError, match=r"did not run 'head.aux'"):
            runner.train()

    def test_plain_model(self, tmp_path):
        cfg = digits_cfg(tmp_path, 4, 'digits/resnet_student.py')
        cfg.custom_hooks = [HOOK]
        with pytest.raises(RuntimeError, match='is a ImageClassifier without a teacher'):
            trained(cfg)

    def test_nan_names_the_sample(self, tmp_path, monkeypatch):
        entropy = VALUES['entropy']
        monkeypatch.setitem(VALUES, 'entropy', lambda z: torch.where(torch.arange(len(z)) == 2, torch.nan, entropy(z)))
        with pytest.raises(FloatingPointError, match='sample'):
            trained(config(tmp_path))


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
