"""From what was found of each image to the measures of each run, on the images that all runs can be compared on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..concepts import find_concepts
from ..learning import Changes, Speed, changes, effective, learning_speed, stability
from .networks import Run
from .samples import Sample
from .work import Found

#: From this part of a run on, foreground has to be discarded less than background; the paper's 40 of 150 epochs.
EFFECTIVE_FROM = 40 / 150


@dataclass
class Measured:
    """A run at a tap, K checkpoints and N images.

    Attributes:
        run: Which.
        entropy: (K, N, h, w), in nats; NaN over padding.
        cells: Concepts, booleans (K, N, h, w).
        foreground: N_fg (K, N).
        background: N_bg (K, N).
        ratio: ``N_fg / (N_fg + N_bg)`` (K, N).
        path: (K,); None for a single checkpoint.
        speed: D_mean and D_std; None without a path.
        stability: rho of each image (N,); None for a single checkpoint.
        changes: Concepts in the foreground that were learned, kept and forgotten (K, N).
    """

    run: Run
    entropy: Tensor
    cells: Tensor
    foreground: Tensor
    background: Tensor
    ratio: Tensor
    path: Tensor | None
    speed: Speed | None
    stability: Tensor | None
    changes: Changes


def choose(
    runs: Sequence[Run], found: Sequence[Sequence[Found]], samples: Sequence[Sample], keep_all: bool = False
) -> tuple[Tensor, dict[str, int]]:
    """Images that all runs can be compared on.

    Those whose foreground is discarded less than their background at every late checkpoint, by students and by
    baselines, as in the paper, where there is one of each. Of several seeds the mean counts, because else a single run
    that knows little of the foreground would leave no image to see it by.

    Args:
        runs: Baselines and students, those of one side with as many checkpoints each.
        found: Of each run and checkpoint.
        samples: The images.
        keep_all: Do not ask that foreground is discarded less than background.

    Returns:
        Booleans (N,), and how many were left out for which reason.

    Raises:
        ValueError: If none is left.
    """
    foreground = torch.stack([sample.foreground for sample in samples])
    background = torch.stack([sample.background for sample in samples])
    usable = torch.stack([one.usable for checkpoints in found for one in checkpoints]).all(0)
    good = torch.ones_like(usable)
    for role in () if keep_all else dict.fromkeys(run.role for run in runs):
        side = [(run, one) for run, one in zip(runs, found, strict=True) if run.role == role]
        last = side[0][0].checkpoints[-1].number
        late = [i for i, one in enumerate(side[0][0].checkpoints) if one.number >= EFFECTIVE_FROM * last]
        mean = torch.stack([torch.stack([one[i].entropy for i in late]) for _, one in side]).mean(0)
        good &= effective(mean, foreground, background)
    reasons = {
        'the feature does not react, or every cell is at a limit': int((~usable).sum()),
        'a late checkpoint discards more of the foreground than of the background': int((usable & ~good).sum()),
    }
    if not bool((usable & good).any()):
        raise ValueError(
            f'none of {len(samples)} images can be compared: '
            + '; '.join(f'{count}: {reason}' for reason, count in reasons.items())
            + '. Give more images, other masks, or --keep-all'
        )
    return usable & good, reasons


def measure(
    run: Run,
    found: Sequence[Found],
    samples: Sequence[Sample],
    chosen: Tensor,
    layer: str | None,
    threshold: float = 0.2,
    level: Literal['image', 'all'] = 'image',
) -> Measured:
    """The measures of a run.

    Args:
        run: Which.
        found: Of each of its checkpoints.
        samples: The images.
        chosen: Which of them count (N,).
        layer: Whose path is meant.
        threshold: See :func:`.find_concepts`.
        level: See :func:`.find_concepts`.
    """
    foreground = torch.stack([sample.foreground for sample in samples])[chosen]
    background = torch.stack([sample.background for sample in samples])[chosen]
    entropy = torch.stack([one.entropy[chosen] for one in found])
    concepts = [find_concepts(one, foreground, background, threshold, level) for one in entropy]
    cells, inside, outside, ratio = (torch.stack(values) for values in zip(*concepts, strict=True))
    path = run.path.get(layer) if layer else None
    several = len(found) > 1
    entropy = entropy.masked_fill(~(foreground | background), torch.nan)
    return Measured(
        run, entropy, cells, inside, outside, ratio, path,
        learning_speed(inside, path) if path is not None else None,
        stability(cells & foreground) if several else None,
        changes(cells & foreground),
    )  # fmt: skip
