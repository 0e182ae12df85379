"""RoIs: what the box branches of a two-stage student classify in its own training pass, read where it happens.

Nothing of mmdet is imported; nothing is sampled or assigned a second time.
"""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .recording import Taps
from .taps import Tap


class BoxBranch(NamedTuple):
    """The box branch of a two-stage detector, or one stage of a cascade's.

    In training it classifies RoIs that the detector sampled itself. They are read where they go
    into the RoI extractor, and their labels where they go into the classification loss: these are
    the student's own, neither sampled nor assigned a second time.
    """

    stage: int | None = None

    @property
    def rois(self) -> Tap:
        """Where the RoIs are read: (R, 5), index of the image and x1, y1, x2, y2 in its pixels."""
        return Tap(self._path('bbox_roi_extractor'), of_input=True, index=(1,))

    @property
    def features(self) -> Tap:
        """Where the finest of the feature maps is read that the RoIs are cut from: (N, C, H, W)."""
        return Tap(self._path('bbox_roi_extractor'), of_input=True, index=(0, 0))

    @property
    def head(self) -> str:
        """Path of the head that scores what was cut out."""
        return self._path('bbox_head')

    def before_head(self, tap: Tap) -> bool:
        """Whether a tap is read before the head runs.

        Samplers that mine hard examples and mask branches run the same RoI extractor on other RoIs; what counts is
        what the head's last run took in.
        """
        return tap.below(self._path('bbox_roi_extractor'), self._path('shared_head'))

    @property
    def labels(self) -> Tap:
        """Where their assigned classes are read: (R,), background last. Not there without RoIs."""
        return Tap(f'{self.head}.loss_cls', of_input=True, index=(1,))

    def run(self, model: nn.Module, features: Collection[Tensor], rois: Tensor) -> None:
        """Score RoIs on a detector's own feature maps."""
        stage = () if self.stage is None else (self.stage,)
        model.roi_head._bbox_forward(*stage, features, rois)  # type: ignore[union-attr, operator]

    def _path(self, module: str) -> str:
        return f'roi_head.{module}' if self.stage is None else f'roi_head.{module}.{self.stage}'


class Region(NamedTuple):
    """What a box branch saw in one training step: RoIs (R, 5) and their labels (R,)."""

    rois: Tensor
    labels: Tensor


def region_taps(branches: Collection[BoxBranch]) -> list[Tap]:
    """What :func:`read_regions` wants to have been tapped in the student."""
    return [tap for branch in _with_earlier(branches) for tap in (branch.rois, branch.features, branch.labels)]


def settled_taps(branches: Collection[BoxBranch], taps: Collection[Tap]) -> dict[str, list[Tap]]:
    """By path of each branch's head, the taps that are to hold what its last run took in."""
    return {branch.head: [tap for tap in taps if branch.before_head(tap)] for branch in _with_earlier(branches)}


def read_regions(recorded: Taps, branches: Collection[BoxBranch], images: int) -> dict[BoxBranch, Region]:
    """The RoIs that box branches saw in the student's training pass, and their labels.

    A stage of a cascade that did not run because an earlier one had no RoIs left is not there.

    Raises:
        RuntimeError: If a branch did not run, or RoIs and labels do not belong together.
    """
    regions: dict[BoxBranch, Region] = {}
    for branch in _with_earlier(branches):
        rois, labels = recorded.peek(branch.rois), recorded.peek(branch.labels)
        if rois is None and any(len(region.rois) == 0 for region in regions.values()):
            continue
        if rois is None or (labels is None and len(rois)):
            missing = branch.rois if rois is None else branch.labels
            raise RuntimeError(
                f"the student did not run '{missing.path}' in training, where its RoIs or labels are read"
            )
        if (features := recorded.peek(branch.features)) is not None and len(features) != images:
            raise RuntimeError(
                f"the student's {branch.features} read {len(features)} feature maps for {images} images: its RoIs "
                'belong to copies of the images that the teacher does not make (TridentNet), and its box branch cannot '
                'be distilled; tap the backbone or the neck'
            )
        if labels is None:
            labels = rois.new_zeros(0, dtype=torch.int64)
        if labels.shape != rois.shape[:1]:
            raise RuntimeError(
                f"the student's {branch.labels} read labels {tuple(labels.shape)} for {len(rois)} RoIs, expected one "
                'for each: this RoI head trains in another way than StandardRoIHead and CascadeRoIHead, and its logits '
                'cannot be distilled; tap the backbone or the neck'
            )
        regions[branch] = Region(rois, labels)
    return regions


def _with_earlier(branches: Collection[BoxBranch]) -> list[BoxBranch]:
    """And the stages of the cascade before them, in order."""
    stages = [branch.stage for branch in branches if branch.stage is not None]
    return [BoxBranch(stage) for stage in range(max(stages) + 1)] if stages else list(branches)


def example_rois(images: Tensor) -> Tensor:
    """Four RoIs of different sizes in each image, (4N, 5), for a dry run."""
    height, width = images.shape[-2:]
    corners = torch.tensor(
        [[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], [0.5, 0.125, 0.625, 0.25]], device=images.device
    )
    boxes = corners * corners.new_tensor([width, height, width, height])
    index = torch.arange(len(images), device=images.device).repeat_interleave(len(boxes))
    return torch.cat([index[:, None].float(), boxes.repeat(len(images), 1)], dim=1)
