"""Dense heads: what they put out at each place of each feature level, and whether two of them can be compared there.

Nothing of mmdet is imported; a head is known by what it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .taps import Tap

#: What a loss may read of a dense head (`DistillLoss.dense_outputs`), and which of the head's outputs that may be.
OUTPUTS: dict[str, tuple[int, ...]] = {'scores': (0, 2), 'distributions': (1,), 'boxes': (1,)}
_ADVICE = 'Compare the necks by a feature loss (PKDLoss, FGDLoss)'


@dataclass(frozen=True)
class DenseGrid:
    """The places that a dense head scores.

    Attributes:
        head: The kind of head.
        classes: How many there are; the background's number in assignments.
        priors: Anchors or points of each place.
        strides: Of each level, along x and y, in pixels.
        generator: mmdet's generator of anchors or points.
        bins: Of a side's distribution; 0 where sides are numbers.
        boxes: What the numbers of a box are: ``deltas`` to an anchor, ``distances`` from a point in pixels, ``bins`` of
            distances in strides; '' where nobody knows.
        coder: mmdet's coder of boxes.
    """

    head: str
    classes: int
    priors: int
    strides: tuple[tuple[float, float], ...]
    generator: Any
    bins: int = 0
    boxes: str = ''
    coder: Any = None

    def anchors(self, sizes: Sequence[tuple[int, int]], like: Tensor) -> list[Tensor]:
        """Of each level (H, W), its anchors (H*W*priors, 4) in pixels.

        Raises:
            ValueError: If the head has points.
        """
        if not hasattr(self.generator, 'base_anchors'):
            raise ValueError(f'{self.head} has points and no anchors, so that no region can be told by them')
        return self.places(sizes, like)

    def places(self, sizes: Sequence[tuple[int, int]], like: Tensor) -> list[Tensor]:
        """Of each level (H, W), its anchors (H*W*priors, 4), or its points (H*W*priors, 2), in pixels."""
        places: list[Tensor] = self.generator.grid_priors(sizes, dtype=like.dtype, device=like.device)
        return places

    def decode(self, numbers: Tensor, places: Tensor, strides: Tensor) -> Tensor:
        """Boxes from what a head puts out for them.

        Args:
            numbers: (P, 4), or (P, 4*bins) where sides are distributions.
            places: (P, 4) anchors or (P, 2) points, in pixels.
            strides: (P,), in pixels.

        Returns:
            (P, 4), x1, y1, x2, y2 in pixels.
        """
        if self.boxes != 'deltas' and places.size(1) == 4:
            places = (places[:, :2] + places[:, 2:]) / 2
        if self.boxes == 'bins':
            bins = torch.arange(self.bins, device=numbers.device, dtype=numbers.dtype)
            numbers = numbers.view(-1, 4, self.bins).softmax(2) @ bins * strides[:, None]
        boxes: Tensor = self.coder.decode(places, numbers)
        return boxes


def check_read(head: Any, taps: Sequence[Tap], outputs: Sequence[str], who: str, side: str) -> None:
    """See that taps read all levels of each output of a head, in order.

    Raises:
        ValueError: If they read something else.
    """
    kind, path, levels = type(head).__name__, taps[0].path, count_levels(head)
    read = [tap.index for tap in taps]
    first = [index[0] if len(index) == 2 else -1 for index in read[::levels]]
    wanted = [(output, level) for output in first for level in range(levels)]
    known = len(first) == len(outputs) and all(o in OUTPUTS[name] for o, name in zip(first, outputs, strict=True))
    if read != wanted or not known or any(tap.path != path or tap.of_input for tap in taps):
        numbers = [OUTPUTS[name][0] for name in outputs]
        which = f'o in {tuple(numbers)} for i' if len(numbers) > 1 else 'i'
        output = '{o}' if len(numbers) > 1 else numbers[0]
        raise ValueError(
            f'{who} compares the {" and ".join(outputs)} of a dense head at all of its levels, and reads '
            f'{[str(tap) for tap in taps]} of the {side}, whose {kind} has {levels}: expected '
            f"on=[f'{path}[{output}][{{i}}]' for {which} in range({levels})], or just on='{path}'"
        )


def count_levels(head: Any) -> int:
    """How many feature levels a head runs on."""
    return len(getattr(head.prior_generator, 'strides', ()))


def read_grid(head: Any, outputs: Sequence[str], who: str, side: str) -> DenseGrid:
    """The grid of a head.

    Raises:
        ValueError: If the head puts out something else than what is asked for.
    """
    kind = type(head).__name__
    strides = tuple(tuple(map(float, stride)) for stride in getattr(head.prior_generator, 'strides', ()))
    if any(cls.__name__ == 'PAAHead' for cls in type(head).__mro__):
        raise ValueError(f"{who}: the {side}'s {kind} assigns image by image, and not level by level. {_ADVICE}")
    if not getattr(head, 'use_sigmoid_cls', getattr(getattr(head, 'loss_cls', None), 'use_sigmoid', False)):
        raise ValueError(
            f"{who} takes the sigmoid of each class, and the {side}'s {kind} is trained by a softmax over classes. "
            f'{_ADVICE}'
        )
    bins = int(getattr(head, 'reg_max', -1)) + 1 if hasattr(head, 'integral') else 0
    if 'distributions' in outputs and not bins:
        raise ValueError(
            f"{who} compares distributions of a box's sides, and the {side}'s {kind} puts out numbers: it needs a "
            'head as GFLHead, with a reg_max'
        )
    boxes = _form_of_boxes(head, bins)
    if 'boxes' in outputs and not boxes:
        raise ValueError(
            f"{who} compares boxes, and nobody knows how to read those of the {side}'s {kind} (bbox_coder: "
            f'{type(getattr(head, "bbox_coder", None)).__name__}): expected deltas to anchors, as in RetinaHead, or '
            'distances from points, as in FCOSHead and GFLHead'
        )
    priors = set(head.prior_generator.num_base_priors)
    if len(priors) > 1:
        raise ValueError(f"{who}: levels of the {side}'s {kind} have {sorted(priors)} anchors. {_ADVICE}")
    coder = getattr(head, 'bbox_coder', None)
    points = head.prior_generator
    return DenseGrid(kind, head.num_classes, priors.pop(), strides, points, bins, boxes, coder)  # type: ignore[arg-type]


def _form_of_boxes(head: Any, bins: int) -> str:
    anchors = hasattr(head.prior_generator, 'base_anchors')
    coders = {cls.__name__ for cls in type(getattr(head, 'bbox_coder', None)).__mro__}
    if 'DistancePointBBoxCoder' in coders:
        return 'bins' if bins else '' if anchors else 'distances'
    return 'deltas' if anchors and 'DeltaXYWHBBoxCoder' in coders else ''


def check_grids(grids: Mapping[str, DenseGrid], outputs: Sequence[str], who: str) -> None:
    """See that all sides score the same places.

    Raises:
        ValueError: If not; the message says what differs.
    """
    sides = list(grids)
    for other in sides[1:]:
        if told := _differences(grids[sides[0]], grids[other], outputs):
            raise ValueError(
                f'{who} compares dense heads place by place, and {sides[0]} ({grids[sides[0]].head}) and {other} '
                f'({grids[other].head}) differ in {"; in ".join(told)}. {_ADVICE}, or take a teacher with the same head'
            )


def _differences(a: DenseGrid, b: DenseGrid, outputs: Sequence[str]) -> list[str]:
    told = []
    if a.strides != b.strides:
        told.append(f'the strides of levels: {_words(a.strides)} and {_words(b.strides)}')
    if a.priors != b.priors:
        told.append(f'the anchors of a place: {a.priors} and {b.priors}')
    if a.classes != b.classes:
        told.append(f'the classes: {a.classes} and {b.classes}')
    if {'distributions', 'boxes'} & {*outputs} and a.boxes != b.boxes:
        told.append(f'what the numbers of a box are: {a.boxes!r} and {b.boxes!r}')
    elif 'distributions' in outputs and a.bins != b.bins:
        told.append(f'the bins of a distribution: {a.bins} and {b.bins} (reg_max + 1)')
    offsets = [getattr(g.generator, 'center_offset', getattr(g.generator, 'offset', 0.0)) for g in (a, b)]
    if offsets[0] != offsets[1]:
        told.append(f'where in its cell a place lies: {offsets[0]:g} and {offsets[1]:g} of a stride')
    bases: list[Any] = [getattr(g.generator, 'base_anchors', None) for g in (a, b)]
    if not told and None not in bases and not all(map(torch.allclose, bases[0], bases[1])):
        told.append(f'the anchors themselves, on the first level {bases[0][0].tolist()} and {bases[1][0].tolist()}')
    return told


def _words(strides: tuple[tuple[float, float], ...]) -> str:
    return str([int(x) if x == y and x == int(x) else (x, y) for x, y in strides])


def is_dense_head(head: Any) -> bool:
    """Whether it is a head whose places are known."""
    return isinstance(head, nn.Module) and all(hasattr(head, name) for name in ('prior_generator', 'num_classes'))


def branch_taps(head: Any, path: str, branches: Sequence[str], after: int, who: str, side: str) -> list[Tap]:
    """What the branches of a head have after some of their convolutions, branch by branch and level by level.

    Args:
        head: Its ``cls_convs`` and ``reg_convs`` are lists of convolutions for all levels, or such a list for each.
        path: Where it is.
        branches: Which.
        after: How many convolutions.
        who: What reads it, for errors.
        side: Whose head it is, for errors.

    Raises:
        ValueError: If there are no such branches, or not as many convolutions.
    """
    levels, taps = count_levels(head), []
    for name in branches:
        convs: Any = getattr(head, name, None)
        convs = list(convs) if isinstance(convs, nn.ModuleList) else []
        own = len(convs) == levels and isinstance(convs[0], nn.ModuleList)
        length = len(convs[0]) if own else len(convs)
        if not length or not 0 <= after <= length:
            raise ValueError(
                f"{who} cuts the head after {after} convolutions, and {name} of the {side}'s {type(head).__name__} "
                + (f'has {length}: expected 0 to {length}' if length else 'is no list of some')
            )
        number, of_input = max(after - 1, 0), after == 0
        taps += [
            Tap(f'{path}.{name}.{level}.{number}', of_input) if own
            else Tap(f'{path}.{name}.{number}', of_input, call=level)
            for level in range(levels)
        ]  # fmt: skip
    return taps
