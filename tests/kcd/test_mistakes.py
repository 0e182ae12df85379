"""What KCDHook cannot work with is an error that says what to do."""

import pytest
import torch

from mmkd_plugin.kcd.valuation import VALUES
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.kcd.test_hook import HOOK, config, trained

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize(
    ('change', 'error', 'match'),
    [
        ({'custom_hooks.1.interval': 6}, ValueError, 'leave no round in 6 epochs'),
        ({'custom_hooks.1.keep_schedule': [0.9]}, ValueError, 'expected 2 ratios, one for each round'),
        ({'custom_hooks.1.logits': 'head.fx'}, ValueError, "no module 'head.fx'"),
        ({'train_dataloader.sampler': {'type': 'InfiniteSampler'}}, TypeError, 'has the sampler InfiniteSampler'),
        ({'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 9}}, RuntimeError, 'is a IterBasedTrainLoop'),
        ({'custom_hooks.1.logits': 'backbone.layer4'}, ValueError, 'KCDHook compares class scores'),
        ({'custom_hooks.1.logits': 'neck'}, ValueError, 'lies before the classifier'),
    ],
)
def test_told_before_training(tmp_path, change, error, match):
    cfg = config(tmp_path)
    if 'train_cfg' in change:
        cfg.train_cfg, cfg.param_scheduler = change.pop('train_cfg'), []
    cfg.merge_from_dict(change)
    with pytest.raises(error, match=match):
        trained(cfg)


def test_batches_larger_than_what_is_kept(tmp_path):
    cfg = config(tmp_path, **{'train_dataloader.batch_size': 32})
    cfg.train_dataloader.drop_last = True
    with pytest.raises(ValueError, match='an epoch of 30 kept samples has no whole batch'):
        trained(cfg)


def test_twice(tmp_path):
    cfg = config(tmp_path)
    cfg.custom_hooks = [HOOK, HOOK]
    with pytest.raises(RuntimeError, match='twice'):
        trained(cfg)


def test_classifier_that_does_not_run(tmp_path):
    cfg = config(tmp_path, hook={'logits': 'head.aux'})
    runner = runner_of(cfg)
    runner.model.head.aux = torch.nn.Linear(2, 10)
    with pytest.raises(RuntimeError, match=r"did not run 'head.aux'"):
        runner.train()


def test_plain_model(tmp_path):
    cfg = digits_cfg(tmp_path, 4, 'digits/resnet_student.py')
    cfg.custom_hooks = [HOOK]
    with pytest.raises(RuntimeError, match='is a ImageClassifier without a teacher'):
        trained(cfg)


def test_nan_names_the_sample(tmp_path, monkeypatch):
    entropy = VALUES['entropy']
    monkeypatch.setitem(VALUES, 'entropy', lambda z: torch.where(torch.arange(len(z)) == 2, torch.nan, entropy(z)))
    with pytest.raises(FloatingPointError, match='sample'):
        trained(config(tmp_path))
