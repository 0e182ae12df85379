from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mmkd_plugin.hooks import EpochSeedHook


class Noise(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.rand(1)


def epoch(number, seed=0, **loader):
    """What an epoch draws: here, and in the items that are loaded."""
    data: Any = DataLoader(Noise(), batch_size=2, **loader)
    hook = EpochSeedHook()
    hook.before_train_epoch(SimpleNamespace(seed=seed, epoch=number, train_dataloader=data))
    return torch.cat(list(data)).flatten().tolist() + torch.rand(2).tolist()


@pytest.mark.parametrize('workers', [0, 2])
def test_depends_on_seed_and_epoch_only(workers):
    torch.rand(5)
    first = epoch(3, num_workers=workers)
    torch.rand(17)
    assert epoch(3, num_workers=workers) == first
    other_epoch, other_seed = epoch(4, num_workers=workers), epoch(3, seed=1, num_workers=workers)
    assert not set(first) & (set(other_epoch) | set(other_seed))
    assert len(set(first)) == len(first), 'workers draw the same numbers'


def test_no_seed_is_seed_zero():
    assert epoch(1, seed=None) == epoch(1, seed=0)


def test_persistent_workers_are_warned():
    said: list[str] = []
    runner = SimpleNamespace(
        logger=SimpleNamespace(warning=said.append), train_dataloader=SimpleNamespace(persistent_workers=True)
    )
    EpochSeedHook().before_train(runner)
    assert 'persistent_workers=True' in said[0]
