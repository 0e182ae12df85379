"""A data set of which an epoch shows a part, some of it mixed: what KCD puts around the training data."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, DefaultSampler, RepeatDataset
from mmengine.structures import BaseDataElement
from torch.utils.data import DataLoader, Dataset, Sampler

#: Where a data sample carries its index in the training data.
INDEX = 'kcd_index'


class Recipe(NamedTuple):
    """What the sampler asks the data set for: an image, and what is mixed into it, in order.

    It travels with the index to the data workers, so that workers which persist over epochs
    never hold an old partition.
    """

    point: int
    mixes: tuple[tuple['Recipe', float], ...] = ()


class CondensedDataset(Dataset):
    """The training data set, asked by :class:`Recipe`.

    Images are mixed as they were loaded, before any augmentation; labels and boxes stay those of
    ``recipe.point``. Every data sample tells its index (``kcd_index``).

    Args:
        dataset: mmengine's ``BaseDataset``, or Concat, Repeat or ClassBalanced of such. Every entry
            of a repeating wrapper is a point of its own.
        mix: (image, partner, epsilon) to image; None where nothing is mixed.

    Raises:
        TypeError: If it is another kind of data set.
    """

    def __init__(self, dataset: Any, mix: Callable[[np.ndarray, np.ndarray, float], np.ndarray] | None) -> None:
        self.dataset = dataset
        self.mix = mix
        _check_kind(dataset, mixes=mix is not None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name in ('dataset', 'mix'):  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Hooks that switch the pipeline mean that of the data set."""
        if name in ('dataset', 'mix'):
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)

    def get_data_info(self, recipe: Recipe | int) -> dict[str, Any]:
        """The entry's own information; batch samplers ask for it."""
        return self.dataset.get_data_info(recipe.point if isinstance(recipe, Recipe) else recipe)

    def __getitem__(self, recipe: Recipe | int) -> Any:
        recipe = recipe if isinstance(recipe, Recipe) else Recipe(recipe)
        owner, index = _owner(self.dataset, recipe.point)
        if recipe.mixes:
            results = self._mixed(recipe)
        else:
            results = owner.prepare_data(index)
        if results is None:  # the pipeline refuses this image; mmengine draws another, which is not valued
            return self.dataset[recipe.point]
        sample = results.get('data_samples') if isinstance(results, dict) else None
        if not isinstance(sample, BaseDataElement):
            raise TypeError(
                f'the pipeline of {type(owner).__name__} gives no data sample to carry the index: end it with '
                'PackInputs or PackDetInputs'
            )
        sample.set_metainfo({INDEX: recipe.point})
        return results

    def _mixed(self, recipe: Recipe) -> Any:
        loaded = self._load(recipe)
        if loaded is None:
            return None
        results, rest = loaded
        for transform in rest:
            results = transform(results) if results is not None else None
        return results

    def _load(self, recipe: Recipe) -> tuple[Any, Sequence[Any]] | None:
        """An image with all its mixes, and the transforms that are still to come; None if one cannot be loaded."""
        owner, index = _owner(self.dataset, recipe.point)
        results = owner.get_data_info(index)
        transforms = list(owner.pipeline.transforms)
        while results is not None and 'img' not in results and transforms:
            results = transforms.pop(0)(results)
        if results is None:
            return None
        if not isinstance(results.get('img'), np.ndarray):
            raise TypeError(
                f'KCD cannot mix the images of {type(owner).__name__}: no transform puts an array into `img`. Say '
                'mixing=None to condense without mixing'
            )
        image = results['img']
        for partner, epsilon in recipe.mixes:
            loaded = self._load(partner)
            if loaded is None:
                return None
            assert self.mix is not None
            image = self.mix(image, _fit(loaded[0]['img'], image), epsilon)
        return {**results, 'img': image}, transforms


class CondensedSampler(Sampler):
    """mmengine's ``DefaultSampler`` over the kept points; the same on any number of processes.

    Args:
        dataset: The data to draw from.
        like: The sampler that it replaces: shuffling, seed and rounding stay as they are.

    Raises:
        TypeError: If that is no ``DefaultSampler``.
    """

    def __init__(self, dataset: CondensedDataset, like: Any) -> None:
        if type(like) is not DefaultSampler:
            raise TypeError(
                f'KCDHook: train_dataloader has the sampler {type(like).__name__}, expected DefaultSampler: '
                'another one decides itself what an epoch shows'
            )
        self.dataset = dataset
        self._like = like
        self.keep(range(len(dataset)))

    def keep(self, points: Sequence[int] | np.ndarray, recipe: Callable[[int], Recipe] = Recipe) -> None:
        """What the coming epochs show.

        Args:
            points: Indices.
            recipe: What to ask the data set for, by index.
        """
        self._points, self._recipe = points, recipe
        self._places = DefaultSampler(points, self._like.shuffle, self._like.seed, self._like.round_up)
        self._places.set_epoch(self._like.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for this epoch."""
        self._like.set_epoch(epoch)
        self._places.set_epoch(epoch)

    def __iter__(self) -> Iterator[Recipe]:
        return (self._recipe(int(self._points[place])) for place in self._places)

    def __len__(self) -> int:
        return len(self._places)


def condensed_loader(loader: DataLoader, dataset: CondensedDataset, sampler: CondensedSampler) -> DataLoader:
    """The same data loader over another data set and sampler."""
    settings = (
        'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context', 'generator',
        'prefetch_factor', 'persistent_workers',
    )  # fmt: skip
    arguments = {name: getattr(loader, name) for name in settings}
    if loader.batch_size is not None:  # torch made the batch sampler
        return DataLoader(
            dataset, batch_size=loader.batch_size, sampler=sampler, drop_last=loader.drop_last, **arguments
        )
    batch_sampler = copy.copy(loader.batch_sampler)
    batch_sampler.sampler = sampler  # type: ignore[union-attr]
    return DataLoader(dataset, batch_sampler=batch_sampler, **arguments)


def _fit(partner: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A partner's image, stretched to the size of the other."""
    if partner.shape[:2] == image.shape[:2]:
        return partner
    stretched = cv2.resize(partner, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return stretched.reshape(*image.shape[:2], *partner.shape[2:])  # OpenCV drops a single channel


def _owner(dataset: Any, index: int) -> tuple[BaseDataset, int]:
    """The ``BaseDataset`` behind wrappers that holds an entry, and its index there."""
    while not isinstance(dataset, BaseDataset):
        place = dataset._get_ori_dataset_idx(index)
        dataset, index = (
            (dataset.datasets[place[0]], place[1]) if isinstance(place, tuple) else (dataset.dataset, place)
        )
    return dataset, index


def _check_kind(dataset: Any, mixes: bool) -> None:
    if isinstance(dataset, BaseDataset):
        if mixes and type(dataset).prepare_data is not BaseDataset.prepare_data:
            raise TypeError(
                f'KCDHook: {type(dataset).__name__} prepares its samples in a way of its own, in which images cannot '
                'be mixed: say mixing=None'
            )
        return
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            _check_kind(part, mixes)
    elif isinstance(dataset, (RepeatDataset, ClassBalancedDataset)):
        _check_kind(dataset.dataset, mixes)
    else:
        raise TypeError(
            f"KCDHook: the training data is a {type(dataset).__name__}, expected mmengine's BaseDataset, or "
            'ConcatDataset, RepeatDataset or ClassBalancedDataset of such'
        )
