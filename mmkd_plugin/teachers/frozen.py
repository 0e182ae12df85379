"""A frozen network: its weights, folded where that changes nothing, and shared by copies of the student."""

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..facts import Batch, Progress, Sizes
from ..files.checkpoint import fingerprint
from ..networks import BoxBranch, Tap, example_rois
from ..randomness import keep_random_state
from .compiling import CompiledParts
from .folding import ConvNormPairs, fold, use_channels_last
from .network_source import NetworkSource
from .network_spec import NETWORK_KEYS, RUNNING_KEYS, TeacherSpec, build_teacher
from .precision import LowWeights, computing, example_images, lost_of_spread, usable
from .side_stream import Begun
from .source import SOURCES, Wanted, follow

# of the spread over images; a wrong fold is off by far more, rounding by far less
_FOLD_TOLERANCE = 1e-2


@SOURCES.register_module()
class Frozen(NetworkSource):
    """A trained network, in evaluation mode, without gradients, shared by copies of the student.

    Args:
        spec: The network and where its weights come from.
        student: The student, whose data preprocessor decides how batches are re-normalised.

    Raises:
        ValueError: If teacher and student share modules, or their preprocessing cannot be matched.
    """

    keys: ClassVar[tuple[str, ...]] = (*NETWORK_KEYS, 'untrained', *RUNNING_KEYS, 'store')

    def __init__(self, spec: TeacherSpec, student: nn.Module) -> None:
        super().__init__(spec.name, spec.model, student)
        self._spec = spec
        self._loaded = False
        self._stream: torch.cuda.Stream | None = None
        self._begun: Begun | None = None
        self._as_read()

    def _as_read(self) -> None:
        """Its network is as its weights were read: nothing was made cheaper."""
        self._optimized = self._channels_last = False
        # what it computes in, whatever autocast is on outside; None: what that makes of it
        self._dtype: torch.dtype | None = None
        self._weights: LowWeights | None = None
        self._parts: CompiledParts | None = None

    @classmethod
    def from_spec(cls, spec: Any, name: str, student: nn.Module) -> 'Frozen':
        """From all that :func:`build_teacher` takes; with ``store``, a :class:`Stored` one."""
        if isinstance(spec, Mapping) and 'store' in spec:
            return SOURCES.module_dict['Stored'].from_spec(spec, name, student)
        return cls(build_teacher(spec, name, student), student)

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Frozen':
        return self

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What it was trained to tell apart, where its checkpoint says so; known once that is read."""
        return self._spec.classes

    @property
    def partial(self) -> bool:
        """Whether its checkpoint may lack some of its weights."""
        return bool(self._spec.allow_missing)

    @property
    def asleep(self) -> bool:
        """Whether it answers without its weights, which were not loaded."""
        return False

    def wake(self) -> None:
        """Have the weights, where it could do without."""

    @property
    def sees_the_same(self) -> bool:
        """Whether it is shown the student's images as they are."""
        return self._renormalize.identity

    @property
    def ready(self) -> bool:
        """Whether it has its weights and has been made cheaper."""
        return self._loaded and self._optimized

    def load(self) -> None:
        """Get the weights, as precisely as they are; see :class:`Source`."""
        if not self._loaded:
            self._spec.load_weights()
            self.fingerprint = fingerprint(self.model.state_dict())
            self._loaded = True

    def get_ready(self, like: Tensor, student: nn.Module | None = None, progress: Progress | None = None) -> None:
        """Be made cheaper, once; see :meth:`NetworkSource.get_ready`."""
        first = not self._optimized
        if first:
            if self._spec.optimize and self.taps:
                self._optimize()  # in the precision of the weights, and cast only then
            self._optimized = True
        if self._spec.precision is None:
            super().get_ready(like, student, progress)
        else:  # cast once, and not to what the student is in
            full = like.new_empty(0, dtype=torch.float32)
            follow(self._renormalize, full)
            if first:
                follow(self.model, full)
            elif next(self.model.parameters(), like).device != like.device:
                self.model.to(like.device)
        if first:
            self._set_up()
            self._spec.model = self.model

    def _set_up(self) -> None:
        """What depends on the device: precision, and compiled parts."""
        precision = self._spec.precision
        like = next(self.model.parameters(), torch.zeros(())).new_empty(0)
        images = example_images((4, *self._input_shape[1:]), like) if self.taps else like
        if precision is not None:
            self._dtype = torch.float32
            if self.taps and usable(precision, self.name, like.device):
                expected = self._tried(images)
                self.model = self._own_copy()
                whole = [branch.rois.path for branch in self.branches]
                # scores have a constant part, of which rounding leaves steps; a linear layer costs next to nothing
                whole += [t.path for t in self.taps if isinstance(self.model.get_submodule(t.path), nn.Linear)]
                self._weights = LowWeights(self.model, precision.dtype, whole)
                self._dtype = precision.dtype
                precision.check(self.name, expected, self._tried(images), self.face.classifier())
        if self.taps and self._spec.compile:
            self.model = self._own_copy()
            ran: set[nn.Module] = set()
            handles = [m.register_forward_pre_hook(lambda m, _: ran.add(m)) for m in self.model.modules()]
            self._tried(images)
            for handle in handles:
                handle.remove()
            self._parts = CompiledParts(self.model, {tap.path for tap in self.taps}, ran, self.name)

    def _own_copy(self) -> nn.Module:
        """Its network, which nobody else has."""
        return copy.deepcopy(self.model) if self.model is self._spec.model else self.model

    def _tried(self, images: Tensor) -> dict[Tap, Tensor]:
        rois = dict.fromkeys(self.branches, example_rois(images))
        with keep_random_state(), torch.no_grad():
            return self._run(self._shown(images, None), self.taps, rois)

    @contextmanager
    def as_a_whole(self) -> Iterator[None]:
        """Inside the block its network can be run in other ways than to teach: in float32, weights as rounded.

        Box decoding and NMS of detectors are not made for less, and nothing of them is taught.
        """
        with ExitStack() as stack:
            if self._parts is not None:
                stack.enter_context(self._parts.off())
            if self._weights is not None:
                stack.enter_context(self._weights.raised())
                before, self._dtype = self._dtype, torch.float32
                stack.callback(setattr, self, '_dtype', before)
            yield

    def each(self, first: int = 0) -> Iterator[str]:
        """Be each of what it is in the course of training, by what it is called then; here, itself."""
        yield self.name

    def read_through(self, batch: Batch, taps: Wanted, written: Mapping[Tap, Tensor]) -> dict[Tap, Tensor]:
        """As :meth:`NetworkSource.read_through`.

        Raises:
            ValueError: If it computes in float16, in which gradients underflow.
        """
        if self._spec.precision is not None and self._spec.precision.dtype == torch.float16:
            raise ValueError(
                f"{self.name} has precision='fp16', in which gradients that go through it underflow: "
                "use 'bf16' or 'fp32'"
            )
        return super().read_through(batch, taps, written)

    def begin(self, batch: Batch, taps: Wanted) -> None:
        """With ``stream=True``, begin the pass beside the student's on a GPU, if that needs only the images."""
        self._begun = None
        images = batch.images
        if self._spec.stream and taps and images.is_cuda and not any(taps.values()):
            if self._stream is None or self._stream.device != images.device:
                self._stream = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
            self._begun = Begun(lambda: super(Frozen, self).read(batch, taps), images, self._stream)

    def read(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """As :meth:`NetworkSource.read`; what was begun is waited for."""
        begun, self._begun = self._begun, None
        if begun is not None and begun.images is batch.images:
            return begun.values(taps, self.name)
        return super().read(batch, taps)

    def _shown(self, images: Tensor, sizes: Sizes | None) -> Tensor:
        if self._dtype is not None:  # the constants of its normalisation are float32
            images = images.float()
        images = super()._shown(images, sizes)
        last = self._channels_last and images.ndim == 4
        if self._dtype is not None:
            images = images.to(self._dtype, memory_format=torch.channels_last if last else torch.preserve_format)
        return images.contiguous(memory_format=torch.channels_last) if last else images

    def _run(
        self,
        images: Tensor,
        taps: Iterable[Tap],
        rois: Mapping[BoxBranch, Tensor],
        written: Mapping[Tap, Tensor] | None = None,
        whole: bool = False,
        short: bool = False,
    ) -> dict[Tap, Tensor]:
        if self._dtype is None:
            return self._compared(images, taps, rois, written, whole, short)
        with computing(self._dtype, images.device.type):
            values = self._compared(images, taps, rois, written, whole, short)
        return {tap: value.float() if value.is_floating_point() else value for tap, value in values.items()}

    def _compared(
        self,
        images: Tensor,
        taps: Iterable[Tap],
        rois: Mapping[BoxBranch, Tensor],
        written: Mapping[Tap, Tensor] | None,
        whole: bool,
        short: bool,
    ) -> dict[Tap, Tensor]:
        """A pass; compiled parts are compared with what they were when they first run."""
        values, parts = super()._run(images, taps, rois, written, whole, short), self._parts
        if parts is None or not parts.on or parts.checked or torch.is_grad_enabled():
            return values
        with parts.off():
            expected = super()._run(images, taps, rois, written, whole, short)
        precision = self._spec.precision
        most = precision.tolerance if self._weights is not None and precision is not None else _FOLD_TOLERANCE
        parts.checked = True
        for tap, value in expected.items():
            if lost_of_spread(values[tap], value) > most:
                parts.give_up(f"tap '{tap}' reads other values when it is compiled")
                return expected
        return values

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
