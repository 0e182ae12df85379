"""What dropped samples are ranked by, through the real Runner, on 40 digits."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from mmkd_plugin.kcd import dropped
from mmkd_plugin.kcd.dropped import Dropped, pass_over
from mmkd_plugin.kcd.fitness import check_images_valued
from mmkd_plugin.kcd.report import Report
from mmkd_plugin.kcd.valuation import VALUES, ValueTable
from tests.end_to_end.helpers import runner_of
from tests.kcd.test_hook import config, hook_of, log_of, trained

pytestmark = pytest.mark.openmmlab
UNCHANGED = {'train_dataloader.dataset.pipeline': [{'type': 'PackInputs'}]}


class Pass(Hook):
    """A pass over all samples after each epoch, of which nothing is used."""

    priority = 'LOWEST'

    def __init__(self):
        self.values = []

    def after_train_epoch(self, runner):
        self.values.append(pass_over(runner, hook_of(runner).observer, np.arange(40)))


class TestPass:
    @pytest.mark.parametrize('value', ['entropy', 'kl'])
    def test_leaves_the_run_untouched(self, tmp_path, value):
        """With augmentation and dropout that draw, and statistics that run."""
        hook = {'value': value, 'dropped_value': 'last'}
        runs: list[Any] = []
        for name in ('plain', 'looked'):
            cfg = config(tmp_path, name, epochs=3, hook=hook)
            cfg.custom_hooks.pop(0)  # that seeds each epoch anew
            cfg.model.neck = [{'type': 'GlobalAveragePooling'}]
            runner = runner_of(cfg)
            runner.model.head.fc = torch.nn.Sequential(torch.nn.Dropout(0.3), runner.model.head.fc)
            if name == 'looked':
                runner.register_hook(Pass())
            runner.train()
            runs.append((runner, torch.get_rng_state(), np.random.get_state()))
        (plain, torch_drew, numpy_drew), (looked, *also) = runs
        np.testing.assert_equal([torch_drew.numpy(), numpy_drew], [also[0].numpy(), also[1]])
        x, y = plain.model.state_dict(), looked.model.state_dict()
        assert all(torch.equal(x[key], y[key]) for key in x)
        np.testing.assert_array_equal(hook_of(plain).table.mean, hook_of(looked).table.mean)
        assert all(module.training for module in looked.model.modules() if isinstance(module, torch.nn.BatchNorm2d))

    def test_gives_what_the_student_says_in_evaluation(self, tmp_path):
        runner = runner_of(config(tmp_path, epochs=3, **UNCHANGED))
        runner.register_hook(looking := Pass())
        runner.train()
        indices, values = looking.values[-1]
        assert indices.tolist() == list(range(40))
        data = runner.train_dataloader.dataset
        batch = runner.model.data_preprocessor(
            {
                'inputs': [data[i]['inputs'] for i in range(40)],
                'data_samples': [data[i]['data_samples'] for i in range(40)],
            }
        )
        with torch.no_grad():
            p = runner.model.eval()(batch['inputs'], mode='tensor').double().softmax(1)
        assert np.abs(-(p * p.log()).sum(1).numpy() - values).max() < 1e-5

    def test_stands_for_each_epoch_that_was_missed(self, tmp_path, monkeypatch):
        rounds = []

        def write(_, hook, result, epoch):
            rounds.append((hook.kept.copy(), hook.table.mean.copy(), hook.table.count.copy()))

        monkeypatch.setattr(Report, 'write', write)
        seen = []

        def pass_over(runner, observer, points):
            seen.append(points)
            return points, np.full(len(points), 0.25)

        monkeypatch.setattr(dropped, 'pass_over', pass_over)
        hook = hook_of(trained(config(tmp_path, hook={'dropped_value': 'pass'})))
        (first, before, _), (_, after, counts) = rounds
        (out,) = seen
        assert out.tolist() == sorted(set(range(40)) - set(first.tolist()))
        np.testing.assert_allclose(after[out], (2 * before[out] + 2 * 0.25) / 4, rtol=1e-6)
        assert counts.tolist() == [4] * 40
        assert (hook.looked, hook.out) == (10, 10)

    def test_processes_share_the_samples(self, tmp_path, monkeypatch):
        runner = trained(config(tmp_path, epochs=3, **UNCHANGED))
        observer, points = hook_of(runner).observer, np.arange(3, 40, 2)
        whole = pass_over(runner, observer, points)
        shares = []
        for rank in range(2):
            monkeypatch.setattr(dropped, 'get_dist_info', lambda rank=rank: (rank, 2))
            shares.append(pass_over(runner, observer, points))
        together = {int(i): v for indices, values in shares for i, v in zip(indices, values, strict=True)}
        assert len(together) == sum(len(indices) for indices, _ in shares) == len(points)
        assert [together[int(i)] for i in whole[0]] == pytest.approx(whole[1].tolist(), rel=1e-5)

    def test_is_told(self, tmp_path):
        trained(config(tmp_path, epochs=8, log_level='INFO', hook={'dropped_value': 'pass'}))
        text = log_of(tmp_path)
        assert '0 of 0 dropped before returned; 0 iterations' in text
        assert '; 6 looked at without training so far' in text  # 40, 34, 27, 20 kept
        assert '; 19 looked at without training so far' in text


def test_aged_by_hand():
    table = ValueTable(5)
    table.update(range(5), [4.0, 2.0, 1.0, 0.8, 0.6])
    aged, kept = Dropped('aged'), np.arange(3)
    nobody: Any = None
    assert aged.renew(nobody, nobody, table, np.arange(5), 2) == 0
    aged.note(table, kept)
    table.update(kept, [0.0, 0.0, 0.0])  # means 2, 1, 0.5
    assert aged.renew(nobody, nobody, table, kept, 2) == 0
    assert table.mean.tolist() == pytest.approx([2.0, 1.0, 0.5, 0.4, 0.3])


@pytest.mark.parametrize(('how', 'returned'), [('last', 10), ('aged', 0)])
def test_values_that_halve_with_every_epoch(tmp_path, monkeypatch, how, returned):
    """The ten lowest are dropped; all return where they keep what they had, and none where that falls as the others."""
    made, epochs = [], []
    runner = runner_of(config(tmp_path, epochs=9, hook={'dropped_value': how, 'interval': 3, 'mixing': None}))
    hook = hook_of(runner)

    def gathered(own):
        epochs.append(0)
        return hook.kept, (1 + hook.kept / 40) * 0.5 ** len(epochs)

    monkeypatch.setattr('mmkd_plugin.kcd.hook.gathered', gathered)
    monkeypatch.setattr(Report, 'write', lambda _, hook, *__: made.append((hook.returned, hook.out)))
    runner.train()
    assert made == [(0, 0), (returned, 10)]


@pytest.mark.parametrize('name', ['loss', 'kl', 'margin', 'forgetting'])
def test_values_are_read_in_the_step(tmp_path, monkeypatch, name):
    """Each is asked with what the step computed, and nothing is run a second time."""
    runner = runner_of(config(tmp_path, epochs=3, hook={'value': name}))
    calls = {'student': 0, 'teacher': 0}
    got, logits, taught = [], [], []
    function = VALUES[name]
    hook = hook_of(runner)

    def student(module, args, output):
        if module.training:
            calls['student'] += 1
            logits.append(output.detach())

    def teacher(module, args, output):
        calls['teacher'] += 1
        taught.append(output.detach())

    runner.model.init_weights()
    runner.model.head.fc.register_forward_hook(student)
    runner.model.distill.teachers['teacher'].model.head.fc.register_forward_hook(teacher)

    def value(logits, **given):
        got.append(given)
        return function(logits, **given)

    monkeypatch.setitem(VALUES, name, value)
    monkeypatch.setattr('mmkd_plugin.kcd.observer.needs_of', lambda _: needs)
    needs: list[str] = {'kl': ['teacher'], 'margin': []}.get(name, ['labels'])
    runner.train()
    assert calls == {'student': 5 + 5 + 3, 'teacher': 5 + 5 + 3}
    assert [list(given) for given in got] == [needs] * 13
    if name == 'kl':
        for given, expected in zip(got, taught, strict=True):
            assert torch.equal(given['teacher'], expected)
    if needs == ['labels']:
        assert sorted(int(label) for given in got[:5] for label in given['labels']) == sorted(list(range(10)) * 4)
    assert hook.table.count.max() == 3
    assert np.isfinite(hook.table.mean).all()


def test_the_teacher_is_read_where_its_loss_rests(tmp_path):
    cfg = config(tmp_path, epochs=3, hook={'value': 'kl', 'final_ratio': 1.0})
    cfg.model.losses.loss_kd.schedule = {'begin': 2}
    table = hook_of(trained(cfg)).table
    assert (table.count == 3).all()
    assert (table.mean > 0).all()


def test_no_loss_compares_class_scores(tmp_path):
    cfg = config(tmp_path, hook={'value': 'kl', 'logits': 'head.fc'})
    cfg.model.losses = {'loss_at': {'type': 'ATLoss', 'on': 'backbone.layer4'}}
    with pytest.raises(
        ValueError, match=r"value='kl' compares with the class scores of a trained teacher, and no loss"
    ):
        trained(cfg)


@pytest.mark.parametrize(
    ('value', 'how', 'match'),
    [
        ('forgetting', 'last', "value='forgetting' counts what becomes of one prediction"),
        ('loss', 'pass', "='pass' asks"),
    ],
)
def test_refused_for_detectors(value, how, match):
    observer: Any = SimpleNamespace(branch=object())
    classifier: Any = SimpleNamespace(branch=None)
    with pytest.raises(ValueError, match=match):
        check_images_valued(observer, how, value)
    check_images_valued(classifier, how, value)
    check_images_valued(observer, 'aged', 'loss')
