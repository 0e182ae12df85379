"""Both graphs of several teachers through the Runner: scores, projection and hashes survive a kill."""

import pytest
import torch

from tests.conftest import student_cfg
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab


def config(folder):
    cfg = digits_cfg(folder, 2, 'digits/graph_resnet.py')
    for teacher in cfg.model.teachers:
        cfg.model.teachers[teacher] = {'model': student_cfg(), 'untrained': True}
    for loss in cfg.model.losses.values():
        loss.weights = 'learned'
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


def test_they_train_are_killed_and_resumed(tmp_path):
    whole = runner_of(config(tmp_path / 'whole')).train()
    losses = whole.distill.losses
    assert losses.loss_logits_graph.sources == ['rotated', 'inverted', 'covered']
    for loss in losses.values():
        scores = loss[0].shares.scores
        assert scores.shape == (3,)
        assert scores.abs().min() > 0
    kill(config(tmp_path / 'part'), 6)
    after = resumed(config(tmp_path / 'part')).state_dict()
    assert {f'distill.losses.loss_representation_graph.0.sketches.{i}.index' for i in range(3)} <= after.keys()
    torch.testing.assert_close(after, whole.state_dict(), rtol=0, atol=0)
