from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mmkd_plugin.hooks import EpochSeedHook, epoch_seed
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed


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


class TestBySample:
    @staticmethod
    def config(folder, workers=0, **hook):
        """With data workers that persist over epochs."""
        cfg = digits_cfg(folder, 2, 'digits/resnet_student.py')
        cfg.train_dataloader.update(num_workers=workers, persistent_workers=bool(workers))
        cfg.custom_hooks = [{'type': 'EpochSeedHook', **hook}]
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        return cfg

    def test_the_images_of_any_number_of_workers(self, tmp_path):
        alone = runner_of(self.config(tmp_path / '0', by_sample=True)).train().state_dict()
        workers = runner_of(self.config(tmp_path / '2', workers=2, by_sample=True)).train().state_dict()
        torch.testing.assert_close(workers, alone, rtol=0, atol=0)

    def test_persistent_workers_resume_exactly(self, tmp_path):
        whole = runner_of(self.config(tmp_path / 'whole', by_sample=True)).train().state_dict()
        kill(self.config(tmp_path / 'part', workers=2, by_sample=True), 6)
        after = resumed(self.config(tmp_path / 'part', workers=2, by_sample=True)).state_dict()
        torch.testing.assert_close(after, whole, rtol=0, atol=0)

    def test_what_a_worker_remembers_cannot_be_repeated(self):
        mosaic = SimpleNamespace(results_cache=[])
        data = SimpleNamespace(dataset=SimpleNamespace(pipeline=SimpleNamespace(transforms=[mosaic])))
        with pytest.raises(RuntimeError, match='by_sample=True cannot repeat SimpleNamespace'):
            epoch_seed.refuse_memories(data)

    def test_a_loop_without_epochs_is_refused(self):
        runner = SimpleNamespace(train_loop=object(), seed=0)
        with pytest.raises(RuntimeError, match='by_sample=True needs epochs, which a object does not count'):
            EpochSeedHook(by_sample=True).before_train(runner)
        with pytest.raises(ValueError, match="by_sample='no' given, expected True or False"):
            EpochSeedHook(by_sample='no')  # type: ignore[arg-type]
