"""mmdet's detectors: the parts of one that somebody reads, and what the rows of their values are.

Nothing of mmdet is imported; a detector is known by what it has.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .dense_heads import DenseGrid, branch_taps, check_read, count_levels, is_dense_head, read_grid
from .network import Network
from .recording import Taps
from .regions import BoxBranch
from .taps import Tap, find_module

#: Heads that run on every feature level.
DENSE_HEADS = ('rpn_head', 'bbox_head')
# of set-prediction and one-stage segmentation, which are not run
_MASK_HEADS = ('panoptic_head', 'mask_head')
#: Sides of images on which a detector is tried that is too deep for the usual one, in pixels.
_SIZES = (256, 320, 512, 640, 1024)
# the modules of a RoI head that run on the sampled RoIs
_BOX_MODULES = ('bbox_roi_extractor', 'shared_head', 'bbox_head')


class Detector(Network):
    """A detector: features of images, dense heads on them, and a RoI head whose box branches score RoIs.

    One-stage, two-stage and set-prediction detectors differ in which of these they have.
    """

    mixes_by_batch: ClassVar[bool] = False

    @classmethod
    def is_kind_of(cls, model: nn.Module) -> bool:
        """Whether it extracts features and has heads on them."""
        heads = (getattr(model, head, None) for head in (*DENSE_HEADS, 'roi_head', *_MASK_HEADS))
        return hasattr(model, 'extract_feat') and any(head is not None for head in heads)

    def run(
        self, images: Tensor, paths: Collection[str] | None = None, rois: Mapping[BoxBranch, Tensor] | None = None
    ) -> None:
        """Backbone and neck, and of the heads what is asked for; no proposals, losses or post-processing.

        Args:
            images: (N, C, H, W).
            paths: The modules that somebody reads; None runs the heads on feature maps.
            rois: By box branch, what it scores.
        """
        features = self.model.extract_feat(images)
        for name in DENSE_HEADS:
            head = getattr(self.model, name, None)
            if head is not None and (paths is None or any(Tap(path).below(name) for path in paths)):
                head(features)
        for branch, boxes in (rois or {}).items():
            branch.run(self.model, features, boxes)

    def rows(self, tap: Tap) -> BoxBranch | None:
        """The box branch that a tap lies in; None for modules that run on whole images.

        Raises:
            ValueError: If there is no such module, or if it is a part of a RoI head that cannot be distilled.
        """
        find_module(self.model, tap.path, self.side)
        head: Any = getattr(self.model, 'roi_head', None)
        if head is None or not tap.below('roi_head'):
            return None
        names = tap.path.split('.')[1:]
        where = f"'{tap.path}' of the {self.side}"
        if not names or names[0] not in _BOX_MODULES:
            raise ValueError(
                f'{where}: of a RoI head only the box branch can be tapped '
                f'({", ".join(f"roi_head.{name}" for name in _BOX_MODULES)}); masks, key points and points see other '
                'RoIs'
            )
        cascade = isinstance(head.bbox_head, nn.ModuleList)
        expected = ['stage', 'x', 'rois'] if cascade else ['x', 'rois']
        taken = [p.name for p in inspect.signature(head._bbox_forward).parameters.values()]
        if taken != expected:
            raise ValueError(
                f'{where}: the box branch of {type(head).__name__} takes {taken}, expected {expected} as in '
                'StandardRoIHead and CascadeRoIHead. Tap the backbone or the neck of this detector'
            )
        if not cascade:
            return self._trained(BoxBranch())
        if len(names) < 2 or not names[1].isdecimal() or int(names[1]) >= len(head.bbox_head):
            raise ValueError(
                f'{where}: {type(head).__name__} has {len(head.bbox_head)} stages, and each samples RoIs of its own: '
                f"name one, as in 'roi_head.{names[0]}.0'"
            )
        return self._trained(BoxBranch(int(names[1])))

    def _trained(self, branch: BoxBranch) -> BoxBranch:
        head = self.model.get_submodule(branch.head)
        if not isinstance(getattr(head, 'loss_cls', None), nn.Module):
            raise ValueError(
                f"the {self.side}'s {branch.head} ({type(head).__name__}) has no loss_cls, where labels are read"
            )
        return branch

    def branches(self) -> list[BoxBranch]:
        """Every box branch, for tools that look at all modules."""
        head: Any = getattr(getattr(self.model, 'roi_head', None), 'bbox_head', None)
        if head is None:
            return []
        return [BoxBranch(i) for i in range(len(head))] if isinstance(head, nn.ModuleList) else [BoxBranch()]

    def dense_head(self, tap: Tap) -> str | None:
        """The dense head that a tap lies in."""
        return next((name for name in DENSE_HEADS if tap.below(name)), None)

    def assigned_at(self, taps: Iterable[Tap]) -> dict[str, Tap]:
        """Where the classification losses of dense heads take it in."""
        heads = dict.fromkeys(head for tap in taps if (head := self.dense_head(tap)))
        losses = {head: getattr(self.model.get_submodule(head), 'loss_cls', None) for head in heads}
        told = [head for head, loss in losses.items() if isinstance(loss, nn.Module)]
        return {head: Tap(f'{head}.loss_cls', of_input=True, index=(1,)) for head in told}

    def count_levels(self, tap: Tap) -> int:
        """Those of ``bbox_head`` or ``rpn_head``."""
        head = getattr(self.model, tap.path, None)
        whole = tap == Tap(tap.path) and tap.path in DENSE_HEADS and is_dense_head(head)
        return count_levels(head) if whole else 0

    def cut(self, tap: Tap, branches: Sequence[str], after: int, who: str) -> list[Tap]:
        """Of heads that run ``cls_convs`` and ``reg_convs`` on each level."""
        if not self.count_levels(tap):
            return super().cut(tap, branches, after, who)
        return branch_taps(getattr(self.model, tap.path), tap.path, branches, after, who, self.side)

    def short_pass(self, written: Mapping[Tap, Tensor], read: Iterable[Tap]) -> Callable[[], None] | None:
        """A dense head alone, on maps of 2x2: what lies before the places that are written is then almost free."""
        names = {self.dense_head(tap) for tap in (*written, *read)}
        head: Any = getattr(self.model, names.pop() or '', None) if len(names) == 1 else None
        if not is_dense_head(head) or not isinstance(channels := getattr(head, 'in_channels', None), int):
            return None
        like = next(iter(written.values()))
        return lambda: head([like.new_zeros(len(like), channels, 2, 2) for _ in range(count_levels(head))])

    def dense_grid(self, taps: Sequence[Tap], outputs: Sequence[str], who: str, read: bool = True) -> DenseGrid:
        """That of ``bbox_head`` or ``rpn_head``.

        Raises:
            ValueError: If taps do not read all levels of the outputs of such a head, or it is trained in another way.
        """
        head = getattr(self.model, self.dense_head(taps[0]) or '', None)
        if not is_dense_head(head):
            return super().dense_grid(taps, outputs, who)
        if read:
            check_read(head, taps, outputs, who, self.side)
        return read_grid(head, outputs, who, self.side)

    def check_read(self, recorded: Taps, again: Callable[[], Taps]) -> None:
        """Refuse what is not run, one level taken for all, and values that are others in training.

        Raises:
            ValueError: If a module lies where a detector is not run; if it runs once for each feature level and the
                tap names none; if a dense head puts out something else in training.
        """
        for tap in recorded.taps:
            head, calls = self.dense_head(tap), recorded.counts.get(tap.path, 0)
            if calls == 0:
                raise ValueError(
                    f"'{tap}' of the {self.side} cannot be tapped: of a {type(self.model).__name__} only the backbone, "
                    'the neck, dense heads and the box branch of a RoI head are run for distillation'
                )
            if tap.call is not None and tap.call >= calls:
                raise ValueError(
                    f"'{tap}' of the {self.side} is call {tap.call} of a module that runs {calls} times in one pass, "
                    f"counted from 0: '{tap.path}@0'" + (f" ... '{tap.path}@{calls - 1}'" if calls > 1 else '')
                )
            if head and calls > 1 and tap.call is None:
                raise ValueError(
                    f"'{tap}' of the {self.side} runs {calls} times in one pass, once for each feature level, and only "
                    f"the last would be read: name the level, as in '{tap.path}@0' ... '{tap.path}@{calls - 1}', or "
                    f"tap the head and name output and level, as in '{head}[0][2]'"
                )
        dense = [tap for tap in recorded.taps if self.dense_head(tap)]
        heads = [self.model.get_submodule(name) for name in {self.dense_head(tap) for tap in dense}]
        for module in heads:
            module.training = True  # the head's own switch alone; norms inside stay in evaluation mode
        try:
            training = again().values(dense) if dense else {}
        except (ValueError, RuntimeError) as error:
            raise ValueError(f'a dense head of the {self.side} puts out something else in training: {error}') from error
        finally:
            for module in heads:
                module.training = False
        for tap, value in training.items():
            expected = recorded.values([tap])[tap]
            if value.shape != expected.shape or not torch.allclose(value, expected, rtol=1e-3, atol=1e-5):
                raise ValueError(
                    f"'{tap}' of the {self.side} has other values in training than in evaluation mode, so those of a "
                    'student and a teacher cannot be compared: tap a module before it'
                )

    def check_logits(self, tap: Tap, who: str) -> None:
        """As of every network; of a detector, RoIs are classified.

        Raises:
            ValueError: If the tap reads no class scores of RoIs.
        """
        branch = self.rows(tap)
        if branch is None:
            raise ValueError(
                f"{who} compares class scores, and '{tap}' of the {self.side} reads none: of a detector, RoIs are "
                "classified in 'roi_head.bbox_head.fc_cls'; use a feature loss on the backbone or neck"
            )
        head: Any = self.model.get_submodule(branch.head)
        scores = (f'{branch.head}.fc_cls', f'{branch.head}[0]')
        if str(tap) not in scores:
            raise ValueError(
                f"{who} compares class scores, and '{tap}' of the {self.side} reads none: on='{scores[0]}'"
            )
        if getattr(head, 'custom_cls_channels', False):
            raise ValueError(
                f"{who}: the columns of '{tap}' of the {self.side} are not just classes and background ("
                f'{type(head.loss_cls).__name__} adds its own), so they cannot be compared as one prediction; use a '
                'feature loss'
            )
        self._check_sigmoid(head.loss_cls, tap, who)

    def check_labels(self, tap: Tap, who: str) -> None:
        """A detector has a class for each RoI, and none for an image.

        Raises:
            ValueError: If the tap lies in no box branch.
        """
        if self.rows(tap) is None:
            raise ValueError(
                f"{who} needs a class for each row, which a detector has for its RoIs: on='roi_head.bbox_head.fc_cls'. "
                'For one-stage detectors use a feature loss on the backbone or neck'
            )

    @property
    def softens_labels(self) -> bool:
        """Never: labels are those of RoIs."""
        return False

    def classifier(self) -> Tap | None:
        """That of the last box branch."""
        branches = self.branches()
        return Tap(f'{branches[-1].head}.fc_cls') if branches else None

    def num_classes(self) -> int | None:
        """Of its box branches, or else of its dense head."""
        heads = [branch.head for branch in self.branches()] or ['bbox_head']
        head = next((m for name, m in self.model.named_modules() if name == heads[-1]), None)
        number = getattr(head, 'num_classes', None)
        return number if isinstance(number, int) else None

    def _rows_of(self, before: int, own: int) -> dict[str, Tensor]:
        """The background is the last row; boxes that belong to classes have several rows for each, in their order."""
        if not self.branches():
            raise ValueError(
                f"the {self.side}'s {type(self.model.bbox_head).__name__} cannot grow from {before} to {own} classes: "
                'a dense head scores all anchors and classes by one convolution; a two-stage detector can grow'
            )
        rows: dict[str, Tensor] = {}
        for branch in self.branches():
            head: Any = self.model.get_submodule(branch.head)
            if not hasattr(head, 'fc_cls') or getattr(head, 'custom_cls_channels', False):
                raise ValueError(
                    f"the {self.side}'s {branch.head} ({type(head).__name__}) cannot grow from {before} to {own} "
                    'classes: its scores are not just a row for each class and the background (fc_cls)'
                )
            scores = torch.cat([torch.arange(before), torch.tensor([own])])
            rows |= {f'{branch.head}.fc_cls.{key}': scores for key, _ in self._own(f'{branch.head}.fc_cls')}
            if hasattr(head, 'fc_reg') and not head.reg_class_agnostic:
                for key, p in self._own(f'{branch.head}.fc_reg'):
                    rows[f'{branch.head}.fc_reg.{key}'] = torch.arange(len(p) // own * before)
        return rows

    def input_shapes(self) -> list[tuple[int, int, int]]:
        """That of its anchors where they are of one, as SSD's; else small ones first; all as its padding makes them."""
        channels, *usual = self.input_shape()
        preprocessor: Any = getattr(self.model, 'data_preprocessor', None)
        divisor = getattr(preprocessor, 'pad_size_divisor', 1) or 1
        anchors: Any = getattr(getattr(self.model, 'bbox_head', None), 'prior_generator', None)
        own = getattr(anchors, 'input_size', None)
        sizes = [own] if isinstance(own, int) else [usual[0], *_SIZES]
        padded = dict.fromkeys(-(-size // divisor) * divisor for size in sizes)
        return [(channels, size, size) for size in padded]

    def _channels(self) -> int:
        return 3  # the first convolution of some detectors (YOLOX) sees pixels that were moved into channels
