from types import SimpleNamespace

import torch

from mmkd_plugin.hooks import EpochSeedHook


def draw(seed, epoch):
    EpochSeedHook().before_train_epoch(SimpleNamespace(seed=seed, epoch=epoch))
    return torch.rand(2).tolist()


def test_depends_on_seed_and_epoch_only():
    torch.rand(5)
    first = draw(0, 3)
    torch.rand(17)
    assert draw(0, 3) == first
    assert draw(0, 4) != first
    assert draw(1, 3) != first
    assert draw(None, 3) == first
