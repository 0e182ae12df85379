"""CRD through the Runner: killed and resumed, averaged, tested, published, in two processes, and what is refused."""

import pytest
import torch
from mmengine.registry import DefaultScope

from mmkd_plugin import distill
from mmkd_plugin.datasets import Digits, indexed
from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.losses import memory
from tests.detection import detector, faster_rcnn_cfg
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed
from tests.processes import ROOT, forked, together

pytestmark = pytest.mark.openmmlab
BANKS = 'distill.losses.loss_crd.0.student_bank'


def config(folder, hooks=(), val=False, **changes):
    """Of 40 images; 36 are of other classes."""
    cfg = digits_cfg(folder, 2, 'digits/crd_resnet.py')
    cfg.model.losses.loss_crd.update({'num_negatives': 20, **changes})
    cfg.custom_hooks = [*hooks, {'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.log_level = 'INFO'
    if not val:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('crd') / 'whole'
    return folder, runner_of(config(folder)).train()


def test_banks_and_normalizers_are_in_the_checkpoint(whole):
    folder, model = whole
    state = read_checkpoint(folder / 'epoch_2.pth')['state_dict']
    assert state[BANKS].shape == (40, 128)
    torch.testing.assert_close(state[BANKS].norm(dim=1), torch.ones(40))  # each was met
    assert torch.equal(state[BANKS], model.distill.losses.loss_crd[0].student_bank)
    assert (state['distill.losses.loss_crd.0.normalizers'] > 0).all()
    assert not any(key.endswith(('.classes', '.order')) for key in state)


def test_memory_is_told_before_training(whole):
    (log,) = whole[0].glob('*/*.log')
    assert "losses['loss_crd'] (CRDLoss): 40 embeddings of each network are kept, 0.0 MiB" in log.read_text()


EMA = {'type': 'EMAHook'}


@pytest.mark.parametrize('changes', [{}, {'queue': 16, 'hooks': [EMA]}], ids=['banks', 'a queue, averaged'])
def test_killed_and_resumed(whole, tmp_path, changes):
    expected = whole[1] if not changes else runner_of(config(tmp_path / 'whole', **changes)).train()
    kill(config(tmp_path / 'part', **changes), 6)
    found = resumed(config(tmp_path / 'part', **changes))
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_an_average_of_models_has_banks_of_its_own(tmp_path):
    runner = runner_of(config(tmp_path, hooks=[{**EMA, 'begin_epoch': 1}], val=True, positive='relax'))
    model = runner.train()
    (average,) = [hook.ema_model.module for hook in runner.hooks if type(hook).__name__ == 'EMAHook']
    one, other = (m.distill.losses.loss_crd[0].student_bank for m in (model, average))
    assert one is not other
    assert torch.equal(one, other)


@pytest.mark.parametrize('changes', [{'train_dataloader.dataset.per_class': 5}, {'queue': 9}], ids=['data', 'queue'])
def test_going_on_with_other_data_is_refused(whole, tmp_path, changes):
    cfg = config(tmp_path, **({} if 'queue' not in changes else changes))
    if 'queue' not in changes:
        cfg.merge_from_dict(changes)
    cfg.resume, cfg.load_from = True, str(whole[0] / 'epoch_1.pth')
    with pytest.raises(
        ValueError, match=r'CRDLoss: the checkpoint has the embeddings of 40 samples in each bank.*Resume'
    ):
        runner_of(cfg).train()
    cfg.resume = False  # from its weights alone it may begin
    cfg.train_cfg.max_epochs = 1
    assert len(runner_of(cfg).train().distill.losses.loss_crd[0].student_bank) == changes.get('queue', 50)


def test_testing_needs_no_data_to_make_banks(whole, tmp_path):
    cfg = digits_cfg(tmp_path, 2, 'digits/crd_resnet.py')
    cfg.load_from = str(whole[0] / 'epoch_2.pth')
    runner = runner_of(cfg)
    assert 'accuracy/top1' in runner.test()
    assert torch.equal(runner.model.state_dict()[BANKS], whole[1].state_dict()[BANKS])


def test_the_published_student_has_none(whole, tmp_path):
    forked('tools/publish_model.py', whole[0] / 'epoch_2.pth', tmp_path / 'student.pth')
    (path,) = tmp_path.glob('student-*.pth')
    slim = read_checkpoint(path)['state_dict']
    assert slim.keys() == {key for key in whole[1].state_dict() if not key.startswith('distill.')}


def test_with_kcd(tmp_path):
    hook = {'type': 'KCDHook', 'interval': 1, 'final_ratio': 0.5, 'logits': 'head.fc'}
    cfg = config(tmp_path)
    cfg.custom_hooks.append(hook)
    model = runner_of(cfg).train()
    assert len(model.distill.losses.loss_crd[0].student_bank) == 40
    assert model.distill.losses.loss_crd[0].seen == 60


class TestMistakes:
    @staticmethod
    def training(cfg, message):
        with pytest.raises(ValueError, match=message):
            runner_of(cfg).train()

    def test_more_negatives_than_there_are(self, tmp_path):
        self.training(config(tmp_path, num_negatives=37), r"losses\['loss_crd'\].*give num_negatives=36 or less")

    def test_data_without_labels(self, tmp_path, monkeypatch):
        get = Digits.get_data_info
        monkeypatch.setattr(Digits, 'get_data_info', lambda *a: {k: v for k, v in get(*a).items() if k != 'gt_label'})
        self.training(
            config(tmp_path), r"losses\['loss_crd'\].*the class of each training sample is needed.*gt_label=None"
        )

    def test_nobody_tells_of_the_data(self, tmp_path):
        cfg = config(tmp_path)
        cfg.custom_hooks = []
        self.training(cfg, r"add dict\(type='DistillHook'\)")

    def test_too_little_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr(memory, 'free_memory', lambda device: 20_000)
        self.training(config(tmp_path), r"losses\['loss_crd'\].*queue=8 would fit")

    def test_indices_that_a_batch_lost(self, tmp_path, monkeypatch):
        monkeypatch.setattr(indexed.IndexedDataset, '_indexed', lambda self, results, index: results)
        self.training(config(tmp_path), 'sample_idx is needed, and this batch has none')

    def test_regions_of_a_detector(self):
        with DefaultScope.overwrite_default_scope('mmdet'):
            student, teacher = detector(faster_rcnn_cfg()), detector(faster_rcnn_cfg())
            with pytest.raises(ValueError, match='knows something of each whole image, or its columns'):
                distill(student, {'loss_c': {'type': 'CRDLoss', 'on': 'roi_head.bbox_head.fc_cls'}}, teacher=teacher)


PROCESSES = """
import sys, copy, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from mmengine.model import MMDistributedDataParallel
from tests.losses.relations.test_crd import LABELS, facts, prepared, taps
dist.init_process_group('gloo')
rank = dist.get_rank()


class Alone:
    'Nobody else.'

    def __enter__(self):
        self.known = dist.is_initialized
        dist.is_initialized = lambda: False

    def __exit__(self, *_):
        dist.is_initialized = self.known


for changes in ({}, {'queue': 8, 'num_negatives': 100}):
    torch.manual_seed(rank)  # each begins elsewhere, as with diff_rank_seed
    together = prepared(seed=rank, **changes)
    both = [torch.empty_like(together.student_bank) for _ in range(2)]
    dist.all_gather(both, together.student_bank)
    assert torch.equal(*both)
    for value in together.parameters():
        dist.broadcast(value.data, 0)
    alone = copy.deepcopy(together)
    wrapped = MMDistributedDataParallel(together, device_ids=None, broadcast_buffers=False)
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor([[3, 8, 20], [3, 11, 8]])  # two samples are met by both processes
    for step in range(3):
        student, teacher = taps(6, seed=step)
        drawn = torch.stack([torch.randperm(30, generator=generator)[:13] for _ in range(6)])
        if not changes:
            together.draw = lambda _: drawn.view(2, 3, 13)[rank]
            alone.draw = lambda _: drawn
        with Alone():
            expected = alone(student, teacher, index.flatten())
        own = slice(3 * rank, 3 * rank + 3)
        value = wrapped(student[own], teacher[own], index[rank])
        for loss, total in ((together, value), (alone, expected)):
            loss.zero_grad()
            total.backward()
        mean = value.detach().clone()
        dist.all_reduce(mean)
        torch.testing.assert_close(mean / 2, expected.detach())
        for one, other in zip(together.parameters(), alone.parameters()):
            torch.testing.assert_close(one.grad, other.grad)
        torch.testing.assert_close(dict(together.named_buffers()), dict(alone.named_buffers()))
        for bank in (together.student_bank, together.normalizers):
            both = [torch.empty_like(bank) for _ in range(2)]
            dist.all_gather(both, bank)
            assert torch.equal(*both)
print('same', flush=True)
dist.barrier()
"""


def test_two_processes_are_one_on_the_joined_batch(tmp_path):
    script = tmp_path / 'processes.py'
    script.write_text(PROCESSES)
    assert all('same' in process.stdout for process in together(script, ROOT))
