"""A source with a network that does not learn: it is asked for tapped values, and computes nothing else."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..facts import Batch, Progress, Sizes
from ..networks import BoxBranch, Network, Tap, Taps, dry_run, network_of
from .preprocessing import Renormalize
from .source import Source, Wanted, check_apart, follow


class NetworkSource(Source):
    """A network in evaluation mode, without gradients, fed what it was trained on.

    Args:
        name: Its key in ``teachers``.
        model: The network.
        student: The student, whose data preprocessor decides how batches are re-normalised.
        sees_the_same: Whether it takes the student's batch as it is.

    Raises:
        ValueError: If they share modules, or their preprocessing cannot be matched.
    """

    def __init__(self, name: str, model: nn.Module, student: nn.Module, sees_the_same: bool = False) -> None:
        super().__init__(name)
        check_apart({'student': student, name: model})
        self.model: Any = model.requires_grad_(False)
        self.model.eval()  # apart: the eval() of mmpretrain's backbones returns None
        own = None if sees_the_same else getattr(model, 'data_preprocessor', None)
        self._renormalize = Renormalize(getattr(student, 'data_preprocessor', None), own, name)
        #: All that is ever read.
        self.wanted: dict[Tap, BoxBranch | None] = {}
        self._rows: dict[Tap, BoxBranch | None] = {}
        self._calls: dict[str, int] = {}
        self._clone: set[Tap] = set()
        self._input_shape: tuple[int, ...] = ()
        # by what is written: whether a part of a pass gives what follows from that
        self._short: dict[frozenset[Tap], bool] = {}

    @property
    def face(self) -> Network:
        """Its network's."""
        return network_of(self.model, self.name)

    @property
    def taps(self) -> list[Tap]:
        """All that is ever read."""
        return list(self.wanted)

    @property
    def branches(self) -> list[BoxBranch]:
        """The box branches that this lies in."""
        return list(self._branches(self.wanted))

    @property
    def ready(self) -> bool:
        """Whether it is where the batches are, and as it will be read."""
        return True

    def probe(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """Run once in full, to learn the shapes, and how often each tapped module runs.

        Raises:
            ValueError: If a tap names no module, or would be read wrongly.
            RuntimeError: If a tapped module does not run.
        """
        self._rows = {tap: self.face.rows(tap) for tap in taps}
        self.wanted = dict(taps)
        self._input_shape = tuple(batch.images.shape)
        own = next(self.model.parameters(), batch.images)
        recorded, self._clone = dry_run(self.face, batch.images.to(own), self.taps, self.branches)
        self._calls = recorded.counts
        return {tap: value.to(batch.images.device) for tap, value in recorded.values().items()}

    def _branches(self, taps: Wanted) -> dict[BoxBranch, BoxBranch]:
        """Its box branches that are read, each with the student's, whose RoIs it scores."""
        found: dict[BoxBranch, BoxBranch] = {}
        for tap, of_student in taps.items():
            branch = self._rows[tap]
            if branch is None or of_student is None:
                continue
            if found.setdefault(branch, of_student) != of_student:
                raise ValueError(
                    f'stage {branch.stage} of {self.name} is compared with the stages {found[branch].stage} and '
                    f'{of_student.stage} of the student, which sample different RoIs; choose one of them'
                )
        return found

    def get_ready(self, like: Tensor, student: nn.Module | None = None, progress: Progress | None = None) -> None:
        """Be on the device and in the dtype of a tensor, which costs a comparison.

        It follows the student's tensors, and not the student's ``to``: a copy of the student that is moved elsewhere
        must not take a network along that it shares.
        """
        follow(self.model, like)
        follow(self._renormalize, like)

    @torch.no_grad()
    def read(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """The tapped values; its pass ends as soon as it has read them.

        Its box branches score the student's RoIs.
        """
        return self._run(self._shown(batch.images, batch.sizes), taps, self._rois(batch, taps))

    def read_through(self, batch: Batch, taps: Wanted, written: Mapping[Tap, Tensor]) -> dict[Tap, Tensor]:
        """As :meth:`read`, of a second pass that goes on with what is written, and with gradient into that.

        Where a network knows a part of a pass that gives the same, as a dense head alone, only that is run; whether it
        does is tried once.
        """
        with torch.no_grad():  # what is written carries the gradient, the images none
            images = self._shown(batch.images, batch.sizes)
        if not self.ready:  # a dry run, before it has followed anybody
            own = next(self.model.parameters(), images)
            images, written = images.to(own), {tap: value.to(own) for tap, value in written.items()}
        rois, key = self._rois(batch, taps), frozenset((*written, *taps))
        if key not in self._short:
            self._short[key] = self._gives_the_same(images, taps, rois, written)
        return self._run(images, taps, rois, written, short=self._short[key])

    @torch.no_grad()
    def _gives_the_same(
        self, images: Tensor, taps: Wanted, rois: Mapping[BoxBranch, Tensor], written: Mapping[Tap, Tensor]
    ) -> bool:
        """Whether a short pass does, on noise."""
        if self.face.short_pass(written, taps) is None:
            return False
        draw = torch.Generator().manual_seed(0)
        images, *noise = (torch.randn(x.shape, generator=draw).to(x) for x in (images, *written.values()))
        written = dict(zip(written, noise, strict=True))
        whole = self._run(images, taps, rois, written)
        try:
            part = self._run(images, taps, rois, written, short=True)
        except (ValueError, TypeError, RuntimeError, IndexError):
            return False
        return all(_same(part[tap].float(), whole[tap].float()) for tap in taps)

    def _rois(self, batch: Batch, taps: Wanted) -> dict[BoxBranch, Tensor]:
        return {own: batch.regions[of_student].rois for own, of_student in self._branches(taps).items()}

    def _shown(self, images: Tensor, sizes: Sizes | None) -> Tensor:
        return self.images(images, sizes)

    def _run(
        self,
        images: Tensor,
        taps: Iterable[Tap],
        rois: Mapping[BoxBranch, Tensor],
        written: Mapping[Tap, Tensor] | None = None,
        whole: bool = False,
        short: bool = False,
    ) -> dict[Tap, Tensor]:
        calls = None if whole else self._calls
        recorded = Taps(self.model, taps, self.name, self._clone, calls, write=written, any_size=short)
        part = self.face.short_pass(written, recorded.taps) if short and written else None
        with recorded.recording():
            if part:
                part()
            else:
                self.face.run(images, {tap.path for tap in (*recorded.taps, *(written or {}))}, rois)
        return recorded.values()

    def images(self, images: Tensor, sizes: Sizes | None = None) -> Tensor:
        """What it is shown of the student's batch (N, C, H, W)."""
        return self._renormalize(images, sizes)

    @torch.no_grad()
    def alone(self, images: Tensor, rois: Mapping[BoxBranch, Tensor] | None = None) -> dict[Tap, Tensor]:
        """All tapped values of a whole pass on images that its own data preprocessor made; to compare with."""
        return self._run(images, self.taps, rois or {}, whole=True)


def _same(got: Tensor, expected: Tensor) -> bool:
    """Equal up to rounding, in units of what the expected differs by from its mean."""
    if got.shape != expected.shape:
        return False
    return bool((got - expected).abs().max() <= 1e-3 * (expected - expected.mean()).abs().max().clamp_min(1e-6))
