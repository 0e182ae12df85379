"""A frozen network that is asked for tapped values, and computes nothing else."""

import copy
import logging
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..facts import Batch, Progress, Sizes
from ..files.checkpoint import fingerprint
from ..networks import BoxBranch, Network, Tap, Taps, dry_run, example_rois, network_of
from ..randomness import keep_random_state
from .folding import ConvNormPairs, fold, use_channels_last
from .network_spec import NETWORK_KEYS, TeacherSpec, build_teacher
from .preprocessing import Renormalize
from .source import SOURCES, Source, Wanted, check_apart, follow

# of the spread over images; a wrong fold is off by far more, rounding by far less
_FOLD_TOLERANCE = 1e-2


@SOURCES.register_module()
class Frozen(Source):
    """A trained network, in evaluation mode, without gradients, shared by copies of the student.

    Args:
        spec: The network and where its weights come from.
        student: The student, whose data preprocessor decides how batches are re-normalised.

    Raises:
        ValueError: If teacher and student share modules, or their preprocessing cannot be matched.
    """

    keys: ClassVar[tuple[str, ...]] = (*NETWORK_KEYS, 'untrained', 'optimize')

    def __init__(self, spec: TeacherSpec, student: nn.Module) -> None:
        super().__init__(spec.name)
        check_apart({'student': student, spec.name: spec.model})
        self.model: Any = spec.model.requires_grad_(False)
        self.model.eval()  # apart: the eval() of mmpretrain's backbones returns None
        self._spec = spec
        self._renormalize = Renormalize(
            getattr(student, 'data_preprocessor', None),
            getattr(spec.model, 'data_preprocessor', None),
            spec.name,
        )
        self._loaded = self._optimized = False
        #: All that is ever read.
        self.wanted: dict[Tap, BoxBranch | None] = {}
        self._rows: dict[Tap, BoxBranch | None] = {}
        self._calls: dict[str, int] = {}
        self._clone: set[Tap] = set()
        self._input_shape: tuple[int, ...] = ()
        self._channels_last = False

    @classmethod
    def from_spec(cls, spec: Any, name: str, student: nn.Module) -> 'Frozen':
        """From all that :func:`build_teacher` takes."""
        return cls(build_teacher(spec, name, student), student)

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Frozen':
        return self

    @property
    def face(self) -> Network:
        """Its network's."""
        return network_of(self.model, self.name)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What it was trained to tell apart, where its checkpoint says so; known once that is read."""
        return self._spec.classes

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
        """Whether it has its weights and has been made cheaper."""
        return self._loaded and self._optimized

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

    def load(self) -> None:
        """Get the weights, as precisely as they are; see :class:`Source`."""
        if not self._loaded:
            self._spec.load_weights()
            self.fingerprint = fingerprint(self.model.state_dict())
            self._loaded = True

    def get_ready(self, like: Tensor, student: nn.Module | None = None, progress: Progress | None = None) -> None:
        """Be made cheaper, once; be on the device and in the dtype of a tensor, which costs a comparison.

        The teacher follows the student's tensors, and not the student's ``to``: a copy of the student that is moved
        elsewhere must not take the shared teacher with it.
        """
        if not self._optimized:
            if self._spec.optimize and self.taps:
                self._optimize()  # in the precision of the weights, and cast only then
            self._spec.model = self.model
            self._optimized = True
        follow(self.model, like)
        follow(self._renormalize, like)

    @torch.no_grad()
    def read(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """The tapped values; its pass ends as soon as it has read them.

        Its box branches score the student's RoIs.
        """
        return self._run(self._shown(batch.images, batch.sizes), taps, self._rois(batch, taps))

    def read_through(self, batch: Batch, taps: Wanted, written: Mapping[Tap, Tensor]) -> dict[Tap, Tensor]:
        """As :meth:`read`, of a second pass that goes on with what is written, and with gradient into that."""
        with torch.no_grad():  # what is written carries the gradient, the images none
            images = self._shown(batch.images, batch.sizes)
        if not self.ready:  # a dry run, before it has followed anybody
            own = next(self.model.parameters(), images)
            images, written = images.to(own), {tap: value.to(own) for tap, value in written.items()}
        return self._run(images, taps, self._rois(batch, taps), written)

    def _rois(self, batch: Batch, taps: Wanted) -> dict[BoxBranch, Tensor]:
        return {own: batch.regions[of_student].rois for own, of_student in self._branches(taps).items()}

    def _shown(self, images: Tensor, sizes: Sizes | None) -> Tensor:
        images = self.images(images, sizes)
        last = self._channels_last and images.ndim == 4
        return images.contiguous(memory_format=torch.channels_last) if last else images

    def _run(
        self,
        images: Tensor,
        taps: Iterable[Tap],
        rois: Mapping[BoxBranch, Tensor],
        written: Mapping[Tap, Tensor] | None = None,
        whole: bool = False,
    ) -> dict[Tap, Tensor]:
        calls = None if whole else self._calls
        recorded = Taps(self.model, taps, self.name, self._clone, calls, write=written)
        with recorded.recording():
            self.face.run(images, {tap.path for tap in (*recorded.taps, *(written or {}))}, rois)
        return recorded.values()

    def images(self, images: Tensor, sizes: Sizes | None = None) -> Tensor:
        """What it is shown of the student's batch (N, C, H, W)."""
        return self._renormalize(images, sizes)

    @torch.no_grad()
    def alone(self, images: Tensor, rois: Mapping[BoxBranch, Tensor] | None = None) -> dict[Tap, Tensor]:
        """All tapped values of a whole pass on images that its own data preprocessor made; to compare with."""
        return self._run(images, self.taps, rois or {}, whole=True)

    def _optimize(self) -> None:
        """Fold batch norms and switch to channels_last, if the tapped values stay the same."""
        original = self.model
        like = next(original.parameters(), torch.zeros(()))
        images = torch.randn(4, *self._input_shape[1:], generator=torch.Generator().manual_seed(0)).to(like)
        rois = dict.fromkeys(self.branches, example_rois(images))
        try:
            # without cuDNN, whose TF32 would hide the error that is looked for
            with torch.backends.cudnn.flags(enabled=False), keep_random_state(), torch.no_grad():
                expected = self._run(self._shown(images, None), self.taps, rois)
                self.model = copy.deepcopy(original)
                with ConvNormPairs(self.model) as pairs:
                    self.face.run(images, {tap.path for tap in self.taps}, rois)
                modules = dict(self.model.named_modules())
                tapped = {id(modules[t.path]) for t in self.taps}
                fold(self.model, [p for p in pairs.found() if not {id(p[0]), id(p[1])} & tapped])
                use_channels_last(self.model)
                self._channels_last = True
                got = self._run(self._shown(images, None), self.taps, rois)
            problem = next((str(t) for t in self.taps if not _same(got[t].float(), expected[t].float())), None)
            problem = problem and f"tap '{problem}' reads other values"
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            problem = str(error)
        if problem:
            self.model, self._channels_last = original, False
            text = f'{self.name}: not made cheaper, it runs as it is ({problem} with batch norms folded)'
            print_log(text, 'current', logging.WARNING)


def _same(got: Tensor, expected: Tensor) -> bool:
    """Equal up to rounding, in units of what differs from image to image: a constant part hides nothing."""
    spread = (expected - expected.mean(0, keepdim=True)).abs().max()
    return bool((got - expected).abs().max() <= _FOLD_TOLERANCE * spread.clamp_min(1e-6))
