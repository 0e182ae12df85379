"""How much each of several teachers counts: alike, as given, or as learnt."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..options import check_number

Weights = Literal['uniform', 'learned'] | Mapping[str, float]


def check_weights(weights: Any) -> Any:
    """The weights, if they are any.

    Raises:
        ValueError: If they are no word that is known, and no dictionary with a number >= 0 for each teacher.
    """
    if isinstance(weights, Mapping) and weights:
        return {name: check_number(weight, f'weights={dict(weights)!r}: {name}') for name, weight in weights.items()}
    if not isinstance(weights, str) or weights not in ('uniform', 'learned'):
        raise ValueError(
            f"weights={weights!r} given, expected 'uniform', 'learned', or a number >= 0 for each teacher by its name, "
            'dict(first=1.0, second=2.0)'
        )
    return weights


class TeacherWeights(nn.Module):
    """Weights that sum to 1, one for each teacher or for each pair of them.

    Learned ones are the softmax of a score each, which start alike. As the loss is what trains them, they go to whom
    the student is nearest to.

    Args:
        weights: As :func:`check_weights` leaves them. Given ones are taken in proportion; that of a pair is the product
            of its teachers'.
        names: The teachers.
        pairs: Whether each pair has a weight; pairs are in the order of :func:`itertools.combinations`.

    Raises:
        ValueError: If given ones have other names, or are all 0.

    Example:
        >>> TeacherWeights({'a': 1, 'b': 3}, ['b', 'a'])()
        tensor([0.7500, 0.2500])
    """

    parts: Tensor

    def __init__(self, weights: Weights, names: Iterable[str], pairs: bool = False) -> None:
        super().__init__()
        names = list(names)
        if isinstance(weights, Mapping) and set(weights) != set(names):
            raise ValueError(f'weights={dict(weights)!r} given, expected one for each of the teachers {sorted(names)}')
        members = list(combinations(names, 2)) if pairs else [(name,) for name in names]
        if weights == 'learned':
            self.scores = nn.Parameter(torch.zeros(len(members)))
            return
        given = weights if isinstance(weights, Mapping) else dict.fromkeys(names, 1.0)
        parts = torch.tensor([prod(given[name] for name in member) for member in members], dtype=torch.float64)
        if not parts.sum() > 0:
            raise ValueError(f'weights={weights!r} given, and none of {members} has one > 0')
        self.register_buffer('parts', (parts / parts.sum()).float(), persistent=False)

    def forward(self) -> Tensor:
        """(teachers,) or (pairs,)."""
        scores: Tensor | None = getattr(self, 'scores', None)
        return self.parts if scores is None else scores.softmax(0)
