"""A frozen network that is asked for tapped values, and computes nothing else."""

import copy
import logging
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..files.checkpoint import fingerprint
from ..networks.detectors import BoxBranch, example_rois
from ..networks.passes import probe, run
from ..networks.taps import Tap, Taps
from ..randomness import keep_random_state
from .folding import ConvNormPairs, fold, use_channels_last
from .preprocessing import Renormalize, Sizes
from .spec import TeacherSpec

# of the spread over images; a wrong fold is off by far more, rounding by far less
_FOLD_TOLERANCE = 1e-2


class Teacher:
    """A teacher: frozen, in evaluation mode, shared by copies of the student.

    It is no ``nn.Module`` and thus no part of the student: optimizers, checkpoints, EMA, DDP and
    parameter counts never see it.

    Args:
        spec: The network and where its weights come from.
        student: The student, whose data preprocessor decides how batches are re-normalised.

    Raises:
        ValueError: If teacher and student share modules, or their preprocessing cannot be matched.
    """

    def __init__(self, spec: TeacherSpec, student: nn.Module) -> None:
        if _parts(spec.model) & _parts(student):
            raise ValueError(
                f'the {spec.name} is, or shares modules or weights with, the student: it would change while '
                'it teaches. Pass a copy.deepcopy of it, or a config and a checkpoint'
            )
        self.name = spec.name
        self.model: Any = spec.model.requires_grad_(False)
        self.model.eval()  # apart: the eval() of mmpretrain's backbones returns None
        self.ready = False
        #: Another text for other weights; known once it is prepared.
        self.fingerprint = ''
        self._spec = spec
        self._renormalize = Renormalize(
            getattr(student, 'data_preprocessor', None),
            getattr(spec.model, 'data_preprocessor', None),
            spec.name,
        )
        self._calls: dict[str, int] = {}
        self._clone: set[Tap] = set()
        #: All that is ever read, and the box branches that it lies in.
        self.taps: list[Tap] = []
        self.branches: list[BoxBranch] = []
        self._input_shape: tuple[int, ...] = ()
        self._channels_last = False

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Teacher':
        return self

    def probe(self, images: Tensor, taps: Iterable[Tap], branches: Collection[BoxBranch] = ()) -> dict[Tap, Tensor]:
        """Run once in full, to learn the shapes, and how often each tapped module runs.

        Args:
            images: Any batch of the right shape (N, C, H, W).
            taps: Everything that will ever be read.
            branches: The box branches of a two-stage detector that this needs.

        Raises:
            ValueError: If a tap names no module.
            RuntimeError: If a tapped module does not run.
        """
        self.taps, self.branches = list(taps), list(branches)
        self._input_shape = tuple(images.shape)
        own = next(self.model.parameters(), images)
        recorded, self._clone = probe(self.model, images.to(own), self.taps, self.name, branches)
        self._calls = recorded.counts
        return {tap: value.to(images.device) for tap, value in recorded.values().items()}

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What it was trained to tell apart, where its checkpoint says so; known once it is prepared."""
        return self._spec.classes

    def prepare(self, like: Tensor) -> None:
        """Be ready for tensors like this one: weights loaded, made cheaper, on its device, in its dtype.

        Called before training starts and in each step, where it only compares. The teacher
        follows the student's tensors, and not the student's ``to``: a copy of the student that
        is moved elsewhere must not take the shared teacher with it.

        Raises:
            FileNotFoundError: If the checkpoint does not exist.
            ValueError: If it cannot be read or does not fit.
        """
        if not self.ready:
            # read and folded as precisely as they are, cast only then
            self._spec.load_weights()
            self.fingerprint = fingerprint(self.model.state_dict())
            if self._spec.optimize and self.taps:
                self._optimize()
            self._spec.model = self.model
            self.ready = True
        self._follow(like)

    def _follow(self, like: Tensor) -> None:
        for module in (self.model, self._renormalize):
            own = next(chain(module.parameters(), module.buffers()), like)
            dtype = like.dtype if like.is_floating_point() else own.dtype  # raw uint8 images say nothing of weights
            if own.device != like.device or own.dtype != dtype:
                module.to(like.device, dtype)

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        taps: Iterable[Tap],
        sizes: Sizes | None = None,
        rois: Mapping[BoxBranch, Tensor] | None = None,
    ) -> dict[Tap, Tensor]:
        """The tapped values for the batch that the student got.

        Args:
            images: (N, C, H, W) as the student's preprocessor made them.
            taps: What to read; the pass ends as soon as it has been read.
            sizes: Height and width of each image before it was padded.
            rois: By box branch of a two-stage detector, the student's RoIs (R, 5).

        Returns:
            A tensor for each tap.
        """
        images = self.images(images, sizes)
        if self._channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        recorded = Taps(self.model, taps, self.name, self._clone, self._calls)
        with recorded.recording():
            run(self.model, images, {tap.path for tap in recorded.taps}, rois)
        return recorded.values()

    def images(self, images: Tensor, sizes: Sizes | None = None) -> Tensor:
        """What it is shown of the student's batch (N, C, H, W)."""
        return self._renormalize(images, sizes)

    @torch.no_grad()
    def alone(self, images: Tensor, rois: Mapping[BoxBranch, Tensor] | None = None) -> dict[Tap, Tensor]:
        """All tapped values of a whole pass on images that its own data preprocessor made; to compare with."""
        recorded = Taps(self.model, self.taps, self.name, self._clone)
        with recorded.recording():
            run(self.model, images, {tap.path for tap in self.taps}, rois)
        return recorded.values()

    def _optimize(self) -> None:
        """Fold batch norms and switch to channels_last, if the tapped values stay the same."""
        original = self.model
        like = next(original.parameters(), torch.zeros(()))
        images = torch.randn(4, *self._input_shape[1:], generator=torch.Generator().manual_seed(0)).to(like)
        paths, rois = {tap.path for tap in self.taps}, dict.fromkeys(self.branches, example_rois(images))
        try:
            # without cuDNN, whose TF32 would hide the error that is looked for
            with torch.backends.cudnn.flags(enabled=False), keep_random_state():
                expected = self(images, self.taps, rois=rois)
                self.model = copy.deepcopy(original)
                with ConvNormPairs(self.model) as pairs, torch.no_grad():
                    run(self.model, images, paths, rois)
                modules = dict(self.model.named_modules())
                tapped = {id(modules[t.path]) for t in self.taps}
                fold(self.model, [p for p in pairs.found() if not {id(p[0]), id(p[1])} & tapped])
                use_channels_last(self.model)
                self._channels_last = True
                got = self(images, self.taps, rois=rois)
            problem = next((str(t) for t in self.taps if not _same(got[t].float(), expected[t].float())), None)
            problem = problem and f"tap '{problem}' reads other values"
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            problem = str(error)
        if problem:
            self.model, self._channels_last = original, False
            text = f'{self.name}: not made cheaper, it runs as it is ({problem} with batch norms folded)'
            print_log(text, 'current', logging.WARNING)


def _parts(model: nn.Module) -> set[int]:
    """Identities of all modules and parameters."""
    return {id(part) for parts in (model.modules(), model.parameters()) for part in parts}


def _same(got: Tensor, expected: Tensor) -> bool:
    """Equal up to rounding, in units of what differs from image to image: a constant part hides nothing."""
    spread = (expected - expected.mean(0, keepdim=True)).abs().max()
    return bool((got - expected).abs().max() <= _FOLD_TOLERANCE * spread.clamp_min(1e-6))
