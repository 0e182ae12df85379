"""What is known of one training batch: by the sources that are asked about it, and by the losses."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..networks import BoxBranch, Region, Tap, example_rois
from .needs import NEEDS

Sizes = Sequence[tuple[int, int]]


class Progress(NamedTuple):
    """How far a run is; its length is None where nobody says it.

    Attributes:
        epoch: From 0.
        iteration: From 0.
        epochs: Of the run. To mmengine an iteration-based run is one epoch.
        iterations: Of the run.
    """

    epoch: int = 0
    iteration: int = 0
    epochs: int | None = None
    iterations: int | None = None


@dataclass
class Batch:
    """One batch as the student got it, and what was computed of it so far in this step.

    Args:
        images: (N, C, H, W), what the student sees.
        data_samples: mmpretrain's or mmdet's, or a label tensor.
        sizes: Height and width of each image before it was padded; None where nobody knows.
        progress: How far the run is.
        regions: By box branch of a two-stage student, the RoIs that it sampled.
        values: By learner (the student, its peers), what was tapped in its own pass, with gradient.
        assigned: By dense head of the student, what each call of its classification loss was told of its positions.
        is_example: Whether nobody labelled these images.
    """

    images: Tensor
    data_samples: Any = None
    sizes: Sizes | None = None
    progress: Progress = field(default_factory=Progress)
    regions: dict[BoxBranch, Region] = field(default_factory=dict)
    values: dict[str, dict[Tap, Tensor]] = field(default_factory=dict)
    assigned: dict[str, list[Tensor]] = field(default_factory=dict)
    is_example: bool = False
    _known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def example(cls, images: Tensor, branches: Iterable[BoxBranch | None] = (), sizes: Sizes | None = None) -> 'Batch':
        """For a dry run on images that nobody labelled: all of class 0, with a box in each, and RoIs for branches."""
        rois, device = example_rois(images), images.device
        region = Region(rois, torch.zeros(len(rois), dtype=torch.int64, device=device))
        return cls(images, sizes=sizes, regions=dict.fromkeys(filter(None, branches), region), is_example=True)

    def has_example(self, need: str) -> bool:
        """Whether :meth:`get` can be asked for it in a dry run."""
        return not self.is_example or NEEDS[need].example is not None

    def get(self, need: str, branch: BoxBranch | None = None) -> Any:
        """One of the needs: a row for each image, or for each RoI that a box branch sampled, where it has rows.

        Raises:
            ValueError: If the batch does not carry it.
            TypeError: If labels are soft.
        """
        if branch is not None and need == 'labels':
            return self.regions[branch].labels
        if need not in self._known:
            provide = NEEDS[need].example if self.is_example else None
            self._known[need] = (provide or NEEDS[need].provide)(self)
        value = self._known[need]
        if branch is None or not NEEDS[need].for_rows:
            return value
        return value[self.regions[branch].rois[:, 0].long()]
