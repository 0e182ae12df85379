"""A frozen network: its weights, folded where that changes nothing, and shared by copies of the student."""

import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..facts import Progress, Sizes
from ..files.checkpoint import fingerprint
from ..networks import example_rois
from ..randomness import keep_random_state
from .folding import ConvNormPairs, fold, use_channels_last
from .network_source import NetworkSource
from .network_spec import NETWORK_KEYS, TeacherSpec, build_teacher
from .source import SOURCES

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

    keys: ClassVar[tuple[str, ...]] = (*NETWORK_KEYS, 'untrained', 'optimize', 'store')

    def __init__(self, spec: TeacherSpec, student: nn.Module) -> None:
        super().__init__(spec.name, spec.model, student)
        self._spec = spec
        self._loaded = self._optimized = self._channels_last = False

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
        if not self._optimized:
            if self._spec.optimize and self.taps:
                self._optimize()  # in the precision of the weights, and cast only then
            self._spec.model = self.model
            self._optimized = True
        super().get_ready(like, student, progress)

    def each(self, first: int = 0) -> Iterator[str]:
        """Be each of what it is in the course of training, by what it is called then; here, itself."""
        yield self.name

    def _shown(self, images: Tensor, sizes: Sizes | None) -> Tensor:
        images = super()._shown(images, sizes)
        last = self._channels_last and images.ndim == 4
        return images.contiguous(memory_format=torch.channels_last) if last else images

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
