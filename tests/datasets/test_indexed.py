"""Every sample tells which entry of the outermost data set it is."""

import copy
import pickle
from typing import Any

import pytest
import torch
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, DefaultSampler, RepeatDataset, pseudo_collate
from mmengine.structures import BaseDataElement
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, Subset

from mmkd_plugin.datasets import INDEX, Digits, IndexedDataset, rewrapped_loader
from mmkd_plugin.randomness import Replay

pytestmark = pytest.mark.openmmlab
PACK = [{'type': 'PackInputs'}]


def digits(per_class=2, pipeline=PACK):
    return Digits(per_class=per_class, pipeline=copy.deepcopy(pipeline))


def index(item):
    return item['data_samples'].metainfo.get(INDEX)


class Rows(Dataset):
    """Not mmengine's; all entries are the same object."""

    def __init__(self, **entry: Any):
        self.entry = {'inputs': torch.zeros(1), 'data_samples': BaseDataElement(metainfo={'own': 1}), **entry}

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.entry


WRAPPERS = {
    'none': lambda: digits(4),
    'concat': lambda: ConcatDataset([digits(2), digits(2)]),
    'repeat': lambda: RepeatDataset(digits(2), 2),
    'balanced': lambda: ClassBalancedDataset(digits(2), 0.4),  # each twice
    'nested': lambda: ConcatDataset([{'type': 'RepeatDataset', 'dataset': digits(1), 'times': 2}, digits(2)]),
}


@pytest.mark.parametrize('kind', WRAPPERS)
def test_an_index_of_its_own_for_every_entry(kind):
    plain = WRAPPERS[kind]()
    data = IndexedDataset(plain)
    assert [index(data[i]) for i in range(len(data))] == list(range(40))
    assert index(data[-1]) == 39
    for i in (0, 20, 39):
        assert torch.equal(data[i]['inputs'], plain[i]['inputs'])
        assert data[i]['data_samples'].gt_label == plain[i]['data_samples'].gt_label
        assert index(plain[i]) is None


def test_mmengines_index_is_shared():
    data = IndexedDataset(RepeatDataset(digits(2), 2))
    assert [data[i]['data_samples'].sample_idx for i in (0, 20, 39)] == [0, 0, 19]


@pytest.mark.parametrize('wrap', [lambda data: data, lambda data: RepeatDataset(data, 2)])
def test_another_image_drawn_instead_of_a_refused_one_has_none(wrap):
    inner = digits()
    inner.pipeline.transforms.insert(0, lambda results: None if results['sample_idx'] == 3 else results)
    data = IndexedDataset(wrap(inner))
    assert index(data[3]) == -1
    assert data[3]['data_samples'].sample_idx != 3
    assert index(data[4]) == 4


def test_data_sets_that_are_not_mmengines():
    data = IndexedDataset(Rows())
    items = [data[i] for i in range(6)]
    assert list(map(index, items)) == list(range(6))
    assert items[2]['data_samples'].own == 1
    assert index(data.dataset[0]) is None

    from mmdet.datasets import MultiImageMixDataset

    mixed = IndexedDataset(MultiImageMixDataset(digits(), []))
    assert [index(mixed[i]) for i in (0, 19)] == [0, 19]


def test_entries_fetched_together():
    """A `Subset` gives whole batches where it is asked for `__getitems__`."""
    data = IndexedDataset(Subset(digits(), [7, 5, 3, 1]))
    (batch,) = DataLoader(data, batch_size=4, collate_fn=pseudo_collate)
    assert [sample.metainfo[INDEX] for sample in batch['data_samples']] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    'dataset', [digits(pipeline=[]), Rows(data_samples=None), [torch.zeros(1)], [(torch.zeros(1), 3)]]
)
def test_nothing_to_carry_the_index(dataset):
    with pytest.raises(TypeError, match=r'(Digits|Rows|list) gives no data sample to carry the index: end its'):
        IndexedDataset(dataset)[0]


def test_iterable_data_sets_have_no_entries():
    class Stream(IterableDataset):
        def __iter__(self):
            yield {}

    with pytest.raises(TypeError, match=r'^Stream given, which is iterable'):
        IndexedDataset(Stream())


def test_other_attributes_are_the_data_sets():
    inner = digits()
    data = IndexedDataset(inner)
    assert data.metainfo['classes'] == tuple('0123456789')
    assert data.get_data_info(3)['sample_idx'] == 3
    data.pipeline = digits(pipeline=[{'type': 'RandomCrop', 'crop_size': 20}, *PACK]).pipeline
    assert inner[0]['inputs'].shape == data[0]['inputs'].shape == (1, 20, 20)
    with pytest.raises(AttributeError, match="'IndexedDataset' object has no attribute '__nothing__'"):
        data.__nothing__  # noqa: B018
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert index(other[5]) == 5
        assert other.dataset is not inner


def settings(loader):
    left_out = ('dataset', 'sampler', 'batch_sampler', '_iterator')
    return {name: value for name, value in vars(loader).items() if name not in left_out}


@pytest.mark.parametrize(
    'options',
    [
        {'batch_size': 3, 'shuffle': True, 'generator': torch.Generator().manual_seed(1)},
        {'batch_size': 6, 'drop_last': True, 'num_workers': 1, 'prefetch_factor': 3, 'persistent_workers': True},
        {'batch_size': None, 'pin_memory': False, 'worker_init_fn': print, 'timeout': 0},
        {'batch_size': 7, 'sampler': DefaultSampler(range(20), seed=0), 'in_order': False},
        {'batch_sampler': BatchSampler(DefaultSampler(range(20), seed=0), 3, True), 'multiprocessing_context': None},
    ],
)
def test_everything_else_of_a_loader_is_kept(options):
    inner = digits()
    loader: Any = DataLoader(inner, collate_fn=lambda items: items, **options)
    other: Any = rewrapped_loader(loader, data := IndexedDataset(inner))
    assert other.dataset is data
    assert loader.dataset is inner
    assert other.sampler is loader.sampler or 'batch_sampler' in options
    assert 'batch_sampler' not in options or other.batch_sampler is loader.batch_sampler
    assert settings(other) == settings(loader)
    assert len(other) == len(loader)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('own_batches', [False, True])
def test_another_sampler(own_batches, workers):
    inner = digits()
    old = RandomSampler(inner)
    batches = {'batch_sampler': BatchSampler(old, 4, False)} if own_batches else {'batch_size': 4, 'sampler': old}
    loader: Any = DataLoader(inner, num_workers=workers, collate_fn=pseudo_collate, **batches)
    new = DefaultSampler(range(5), shuffle=False)
    other: Any = rewrapped_loader(loader, IndexedDataset(inner), new)
    drawn = [[sample.metainfo[INDEX] for sample in batch['data_samples']] for batch in other]
    assert drawn == [[0, 1, 2, 3], [4]]
    assert other.batch_sampler.sampler is new
    assert loader.batch_sampler.sampler is old, 'the loader that was given has changed'


def test_batches_that_no_sampler_decides():
    loader = DataLoader(digits(), batch_sampler=[[0, 1], [2]])
    with pytest.raises(TypeError, match='has the batch sampler list, which draws from no `sampler`'):
        rewrapped_loader(loader, IndexedDataset(digits()), DefaultSampler(range(5)))


CROP = [{'type': 'RandomCrop', 'crop_size': 28, 'padding': 6}, *PACK]


def views(data, workers=0, epochs=(0, 1), order=range(20), **loader):
    """The images of some views, by entry; drawn in any order, by any number of workers."""
    data = IndexedDataset(data)
    data.replay = Replay(seed=5)
    read = DataLoader(data, 4, sampler=list(order), num_workers=workers, collate_fn=pseudo_collate, **loader)
    shown = {}
    for view in epochs:
        data.replay.show(view)
        for batch in read:
            for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
                shown[view, sample.metainfo[INDEX]] = image
    return shown


def test_an_augmentation_can_be_replayed():
    plain = digits(2, CROP)
    first = views(plain)
    assert sum(torch.equal(first[0, i], first[1, i]) for i in range(20)) < 5  # 13 x 13 crops
    torch.manual_seed(9)
    for again in (
        views(plain, order=reversed(range(20))),
        views(plain, workers=2),
        views(plain, workers=2, persistent_workers=True),
        views(plain, epochs=(1, 0)),
    ):
        assert again.keys() == first.keys()
        assert all(torch.equal(again[key], first[key]) for key in first)


def test_nobody_else_draws_differently_because_of_it():
    torch.manual_seed(3)
    expected = torch.rand(2)
    data = IndexedDataset(digits(2, CROP))
    data.replay = Replay(seed=5)
    torch.manual_seed(3)
    data[0]
    assert torch.equal(torch.rand(2), expected)
