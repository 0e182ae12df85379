"""A data set of which an epoch shows a part, some of it mixed: what KCD puts around the training data."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.dataset import BaseDataset, DefaultSampler
from torch.utils.data import Sampler

from ..datasets.indexed import IndexedDataset, find_owner, owners


class Recipe(NamedTuple):
    """What the sampler asks the data set for: an image, and what is mixed into it, in order.

    It travels with the index to the data workers, so that workers which persist over epochs
    never hold an old partition.
    """

    point: int
    mixes: tuple[tuple['Recipe', float], ...] = ()


class CondensedDataset(IndexedDataset):
    """The training data set, asked by :class:`Recipe`.

    Images are mixed as they were loaded, before any augmentation; labels and boxes stay those of
    ``recipe.point``, whose index the data sample carries.

    Args:
        dataset: mmengine's ``BaseDataset``, or Concat, Repeat or ClassBalanced of such. Every entry
            of a repeating wrapper is a point of its own.
        mix: (image, partner, epsilon) to image; None where nothing is mixed.

    Raises:
        TypeError: If it is another kind of data set.
    """

    _own = ('dataset', 'replay', 'mix')

    def __init__(self, dataset: Any, mix: Callable[[np.ndarray, np.ndarray, float], np.ndarray] | None) -> None:
        for owner in owners(dataset):
            _check_kind(owner, mixes=mix is not None)
        super().__init__(dataset)
        self.mix = mix

    def get_data_info(self, recipe: Recipe | int) -> dict[str, Any]:
        """The entry's own information; batch samplers ask for it."""
        return self.dataset.get_data_info(recipe.point if isinstance(recipe, Recipe) else recipe)

    def __getitem__(self, recipe: Recipe | int) -> Any:
        if not isinstance(recipe, Recipe) or not recipe.mixes:
            return super().__getitem__(recipe.point if isinstance(recipe, Recipe) else recipe)
        with self._drawing(recipe.point):
            return self._indexed(self._mixed(recipe), recipe.point)

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
        owner, index = find_owner(self.dataset, recipe.point)
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

    Where fewer points leave a last batch of a single image, which the full data did not, that image is
    left out, one in each process: batch norms fail on it, or learn nothing from it. The shuffle draws
    which one, so that it is another in each epoch (the same one where nothing is shuffled).

    Args:
        dataset: The data to draw from.
        like: The sampler that it replaces: shuffling, seed and rounding stay as they are.
        batch_size: Of the batches that are cut from it, if the last may be smaller; None where
            something else than torch's batch sampler groups the images.

    Raises:
        TypeError: If that is no ``DefaultSampler``.
    """

    def __init__(self, dataset: CondensedDataset, like: Any, batch_size: int | None = None) -> None:
        if type(like) is not DefaultSampler:
            raise TypeError(
                f'KCDHook: train_dataloader has the sampler {type(like).__name__}, expected DefaultSampler: '
                'another one decides itself what an epoch shows'
            )
        self.dataset = dataset
        self._like = like
        self._batch_size = None if batch_size and len(like) % batch_size == 1 else batch_size
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
        self._length = len(self._places)
        if self._batch_size and self._length > 1 and self._length % self._batch_size == 1:
            self._length -= 1

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for this epoch."""
        self._like.set_epoch(epoch)
        self._places.set_epoch(epoch)

    def __iter__(self) -> Iterator[Recipe]:
        return (self._recipe(int(self._points[place])) for place in islice(self._places, self._length))

    def __len__(self) -> int:
        return self._length


def _fit(partner: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A partner's image, stretched to the size of the other."""
    if partner.shape[:2] == image.shape[:2]:
        return partner
    stretched = cv2.resize(partner, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return stretched.reshape(*image.shape[:2], *partner.shape[2:])  # OpenCV drops a single channel


def _check_kind(owner: Any, mixes: bool) -> None:
    if not isinstance(owner, BaseDataset):
        raise TypeError(
            f"KCDHook: the training data is a {type(owner).__name__}, expected mmengine's BaseDataset, or "
            'ConcatDataset, RepeatDataset or ClassBalancedDataset of such'
        )
    if mixes and type(owner).prepare_data is not BaseDataset.prepare_data:
        raise TypeError(
            f'KCDHook: {type(owner).__name__} prepares its samples in a way of its own, in which images cannot '
            'be mixed: say mixing=None'
        )
