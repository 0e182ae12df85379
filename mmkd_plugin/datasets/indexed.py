"""A data set whose samples tell which entry they are: for all that remembers something about a sample."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.structures import BaseDataElement
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..randomness import Replay

#: Where a data sample's metainfo holds its index in the outermost data set.
INDEX = 'sample_index'
#: The same of the view that its pipeline drew, where :attr:`IndexedDataset.replay` is set.
VIEW = 'sample_view'
_SETTINGS = (
    'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context', 'generator',
    'prefetch_factor', 'persistent_workers', 'pin_memory_device', 'in_order',
)  # fmt: skip


class IndexedDataset(Dataset):
    """Any data set; entry i carries i in the metainfo of its data sample (:data:`INDEX`).

    mmengine's own ``sample_idx`` counts in the innermost data set, so that under ``ConcatDataset``,
    ``RepeatDataset`` or ``ClassBalancedDataset`` several entries share one. Where the pipeline of a
    ``BaseDataset`` refuses an image, what mmengine draws in its place carries -1.

    With :attr:`replay` set, what the pipeline draws for an entry follows from a seed, a view and the
    entry's index alone, in any worker and process, and the data sample tells the view (:data:`VIEW`).

    All other attributes are those of the data set, to read and to set.

    Args:
        dataset: mmengine's, or any other whose entries are dictionaries with ``data_samples``.

    Raises:
        TypeError: If the data set has no entries to count; if an entry has no data sample.
    """

    _own: tuple[str, ...] = ('dataset', 'replay')

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, IterableDataset):
            raise TypeError(
                f'{type(dataset).__name__} given, which is iterable and has no entries to count; expected a data '
                'set with len() and [index]'
            )
        self.dataset = dataset
        self.replay: Replay | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        # own names are not there yet while it is unpickled; `__getitems__` would go round the index
        if name in self._own or name.startswith('__'):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Hooks that switch the pipeline mean that of the data set."""
        if name in self._own:
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)

    def __getitem__(self, index: Any) -> Any:
        index = int(index)
        index += len(self) if index < 0 else 0
        with self._drawing(index):
            return self._indexed(self._prepare(index), index)

    def _drawing(self, index: int) -> AbstractContextManager[Any]:
        return self.replay.drawing(index) if self.replay else nullcontext()

    def _prepare(self, index: int) -> Any:
        """An entry; None if the pipeline of a ``BaseDataset`` refuses it."""
        owner, place = find_owner(self.dataset, index)
        if isinstance(owner, BaseDataset):
            return owner.prepare_data(place)
        results = owner[place]
        if sample := _data_sample(results):  # which the data set may hold more than once
            return {**results, 'data_samples': sample.clone()}
        return results

    def _indexed(self, results: Any, index: int) -> Any:
        """What was prepared, with its index; what mmengine takes instead of a refused image, with -1."""
        owner = find_owner(self.dataset, index)[0]
        if results is None and isinstance(owner, BaseDataset):
            results, index = self.dataset[index], -1
        sample = _data_sample(results)
        if sample is None:
            raise TypeError(
                f'{type(owner).__name__} gives no data sample to carry the index: end its pipeline with PackInputs or '
                "PackDetInputs; an entry of another data set is a dictionary with 'data_samples'"
            )
        sample.set_metainfo({INDEX: index, **({VIEW: self.replay.view} if self.replay else {})})
        return results


def _data_sample(results: Any) -> BaseDataElement | None:
    sample = results.get('data_samples') if isinstance(results, dict) else None
    return sample if isinstance(sample, BaseDataElement) else None


def find_owner(dataset: Any, index: int) -> tuple[Any, int]:
    """The data set behind mmengine's wrappers that holds an entry, and its index there."""
    while isinstance(dataset, (ConcatDataset, RepeatDataset, ClassBalancedDataset)):
        place = dataset._get_ori_dataset_idx(index)
        dataset, index = (
            (dataset.datasets[place[0]], place[1]) if isinstance(place, tuple) else (dataset.dataset, place)
        )
    return dataset, index


def owners(dataset: Any) -> Iterator[Any]:
    """All data sets behind mmengine's wrappers."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from owners(part)
    elif isinstance(dataset, (RepeatDataset, ClassBalancedDataset)):
        yield from owners(dataset.dataset)
    else:
        yield dataset


def transforms_of(node: Any) -> Iterator[Any]:
    """Those of a pipeline, and those within them (``RandomApply``, ``RandomChoice``)."""
    if not isinstance(node, (list, tuple)):
        yield node
        inner = getattr(node, 'transforms', ())
        node = inner if isinstance(inner, (list, tuple)) else (inner,)
    for child in node:
        yield from transforms_of(child)


def index_training_data(loop: Any) -> IndexedDataset:
    """The indexed data set of a training loop, put around its data where there is none yet.

    Args:
        loop: mmengine's, built. An iteration-based one has begun to read, and begins anew.
    """
    dataset = loop.dataloader.dataset
    if not isinstance(dataset, IndexedDataset):
        dataset = IndexedDataset(dataset)
        loop.dataloader = rewrapped_loader(loop.dataloader, dataset)
        if hasattr(loop, 'dataloader_iterator'):
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)
    return dataset


def rewrapped_loader(loader: DataLoader, dataset: Any, sampler: Any = None) -> DataLoader:
    """The same data loader over another data set.

    Args:
        loader: Stays as it is.
        dataset: Instead of the loader's.
        sampler: Instead of the loader's; None keeps that. A batch sampler is copied, and draws from it.

    Raises:
        TypeError: If the sampler is another and the loader's batch sampler draws from none.
    """
    arguments = {name: getattr(loader, name) for name in _SETTINGS if hasattr(loader, name)}
    if loader.batch_size is not None or loader.batch_sampler is None:  # torch makes the batches, or there are none
        sampler = loader.sampler if sampler is None else sampler
        arguments |= {'batch_size': loader.batch_size, 'drop_last': loader.drop_last}
        return DataLoader(dataset, sampler=sampler, **arguments)
    batch_sampler: Any = loader.batch_sampler
    if sampler is not None:
        if not hasattr(batch_sampler, 'sampler'):
            raise TypeError(
                f'the data loader has the batch sampler {type(batch_sampler).__name__}, which draws from no `sampler` '
                'that could be replaced: use one that does, such as BatchSampler or AspectRatioBatchSampler'
            )
        batch_sampler = copy.copy(batch_sampler)
        batch_sampler.sampler = sampler
    return DataLoader(dataset, batch_sampler=batch_sampler, **arguments)
