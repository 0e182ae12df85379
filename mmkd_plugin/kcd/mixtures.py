"""What is mixed into which image, between two rounds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .dataset import Recipe
from .valuation import Condensation, mix


class Mixer:
    """Mixing of one kind, as data workers get it.

    Args:
        mode: ``convex`` or ``additive``.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def __call__(self, image: np.ndarray, partner: np.ndarray, epsilon: float) -> np.ndarray:
        """See :func:`mmkd_plugin.kcd.valuation.mix`."""
        return mix(image, partner, epsilon, self.mode)


class RecipeBook:
    """Recipes by index: three numbers for each mixed image, and its history where mixing is cumulative.

    Args:
        cumulative: Mix mixed images further. An image and its partners then load more images with every round.
    """

    def __init__(self, cumulative: bool = False) -> None:
        self.cumulative = cumulative
        self._low = self._partners = np.zeros(0, np.int64)
        self._epsilon = np.zeros(0, np.float32)
        self._older: dict[int, Recipe] = {}

    def __len__(self) -> int:
        return len(self._low)

    def __call__(self, index: int) -> Recipe:
        """What to ask the data set for."""
        older = self._older.get(index, Recipe(index))
        place = int(np.searchsorted(self._low, index))
        if place == len(self._low) or self._low[place] != index:
            return older
        partner = int(self._partners[place])
        mixed = (self._older.get(partner, Recipe(partner)), float(self._epsilon[place]))
        return Recipe(index, (*older.mixes, mixed))

    def turn(self, result: Condensation, kept: np.ndarray, forget_dropped: bool) -> None:
        """The next round's mixing instead of the last one's, or on top of it.

        Args:
            result: What the round decided.
            kept: Its kept samples.
            forget_dropped: Dropped samples never return, so their history is not needed.
        """
        if self.cumulative:
            self._older.update({index: self(index) for index in self._low.tolist()})
            if forget_dropped:
                alive = {*kept.tolist(), *result.partners.tolist()}
                self._older = {index: recipe for index, recipe in self._older.items() if index in alive}
        mixes = result.epsilon > 0  # the best of the low ones is mixed with weight 0: left as it is
        order = np.argsort(result.low[mixes])
        self._low, self._partners = result.low[mixes][order], result.partners[mixes][order]
        self._epsilon = result.epsilon[mixes][order]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and lists, which load without pickle."""
        return {
            'low': torch.from_numpy(self._low),
            'partners': torch.from_numpy(self._partners),
            'epsilon': torch.from_numpy(self._epsilon),
            'older': [_plain(recipe) for recipe in self._older.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._low, self._partners, self._epsilon = (
            state[name].cpu().numpy().copy() for name in ('low', 'partners', 'epsilon')
        )
        self._older = {recipe[0]: _recipe(recipe) for recipe in state['older']}


def _plain(recipe: Recipe) -> list[Any]:
    return [recipe.point, [[_plain(partner), epsilon] for partner, epsilon in recipe.mixes]]


def _recipe(plain: Sequence[Any]) -> Recipe:
    return Recipe(plain[0], tuple((_recipe(partner), epsilon) for partner, epsilon in plain[1]))
