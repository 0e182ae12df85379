"""A frozen network whose answers are kept on disk, so that it runs once for each sample and view."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from torch import Tensor, nn

from ..facts import Batch, Progress
from ..files.addresses import downloaded, local_path
from ..losses import DistillLoss
from ..networks import Tap
from ..randomness import keep_random_state
from ..store import Form, Header, Records, StoreOptions, choose_form, drawn
from ..store.identity import SEEDS, describe, identity_of_preprocessing, sha256_of_file, sha256_of_weights, versions
from ..store.records import size
from .frozen import Frozen
from .network_spec import TeacherSpec, build_teacher
from .source import SOURCES, Wanted


@dataclass(frozen=True)
class Surroundings:
    """What a run shows a stored teacher, which :class:`~mmkd_plugin.hooks.DistillHook` tells.

    Args:
        data: Identity of the training data.
        pipeline: Identity of the transforms.
        images: (C, H, W) that the student's data preprocessor makes.
        views: How many of the views the run will see.
    """

    data: dict[str, Any]
    pipeline: list[Any]
    images: tuple[int, ...]
    views: int


@SOURCES.register_module()
class Stored(Frozen):
    """A frozen teacher with a knowledge store: ``dict(config=..., checkpoint=..., store=dict(path=..., views=10))``.

    It answers with what the store says of a sample and view. Where a record is missing, it runs on the whole batch, so
    that a batch is computed the same whatever of it is there, keeps what was missing, and answers with what was kept:
    the run that fills a store and the next one get the same, bit for bit. Where all records are there, its weights are
    not loaded. It runs in full precision, also under autocast.

    Args:
        spec: The network and where its weights come from.
        student: The student.
        options: Of the store.

    Raises:
        ValueError: As :class:`Frozen`; at the build, if something is read of it that cannot be kept.
    """

    def __init__(self, spec: TeacherSpec, student: nn.Module, options: StoreOptions) -> None:
        super().__init__(spec, student)
        self.options = options
        own, students = (getattr(network, 'data_preprocessor', None) for network in (spec.model, student))
        self._preprocessing = identity_of_preprocessing(own, students)
        self._of_logits: dict[Tap, bool] = {}
        self._temperatures: dict[Tap, float] = {}
        self._surroundings: Surroundings | None = None
        self._identity: dict[str, Any] = {}
        #: What is on the disk; None until somebody told of the data, and it was opened or begun.
        self.records: Records | None = None

    @classmethod
    def from_spec(cls, spec: Any, name: str, student: nn.Module) -> 'Stored':
        """As a frozen teacher's, with ``store``; see :class:`~mmkd_plugin.store.StoreOptions`."""
        plain = {key: value for key, value in spec.items() if key != 'store'}
        options = StoreOptions.read(spec.get('store'), name)
        return cls(build_teacher(plain, name, student), student, options)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What it was trained to tell apart, where its checkpoint says so."""
        told = self.records.header.about.get('classes') if self.asleep and self.records else super().classes
        return None if told is None else tuple(told)

    @property
    def asleep(self) -> bool:
        """Whether the store had everything, so that the weights were not loaded."""
        return self.records is not None and not self._loaded

    def read_by(self, who: str, taps: Iterable[Tap], loss: Any) -> None:
        """See that a loss can be taught by what is kept; see :class:`Source`."""
        self.weights_wanted |= type(loss).prepare is not DistillLoss.prepare
        for tap in taps:
            self._of_logits[tap] = self._of_logits.get(tap, True) and loss.compares_logits
            if self.options.keep == 'all':
                continue
            temperature = loss.top_k_temperature()
            if temperature is None:
                raise ValueError(
                    f"{who} reads more of '{tap}' of {self.name} than the softmax at one temperature, and its "
                    f"store has keep={self.options.keep}, of which that would be wrong: say keep='all', or use KDLoss"
                )
            if self._temperatures.setdefault(tap, temperature) != temperature:
                raise ValueError(
                    f"{who} reads '{tap}' of {self.name} at the temperature {temperature:g}, another loss at "
                    f'{self._temperatures[tap]:g}, and its store has keep={self.options.keep}, which spreads the '
                    "rest for one of them: say keep='all', or the same temperature"
                )

    def probe(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """Run once, to learn the shapes; see :class:`NetworkSource`.

        Raises:
            ValueError: If a tap has RoIs as its rows.
        """
        if rois := [str(tap) for tap, rows in taps.items() if rows is not None or self.face.rows(tap) is not None]:
            raise ValueError(
                f"'{rois[0]}' of {self.name} scores RoIs, which the student samples anew in each step: a store "
                'cannot know them. Drop store, or tap backbone, neck or a dense head'
            )
        return super().probe(batch, taps)

    def read_through(self, batch: Batch, taps: Wanted, written: Any) -> dict[Tap, Tensor]:
        """Refused.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f'{self.name} has a store, and a pass that goes on with what the student computed is another one in '
            'each step: drop store'
        )

    def begin(self, batch: Batch, taps: Wanted) -> None:
        """Nothing: what is kept is read when it is wanted."""

    def open(self, surroundings: Surroundings) -> None:
        """Be told what it is shown; before :meth:`load`."""
        self._surroundings = surroundings

    def load(self) -> None:
        """Open the store if there is one, and get the weights unless it has everything.

        Raises:
            ValueError: If the store is of something else; the message says what changed.
        """
        if self._loaded or self.records or self._surroundings is None:  # None: who only looks at it
            return super().load()
        self._identity = self._identify()  # before anything is folded
        header = Header.of(self.options.path)
        if header is not None:
            header.check(self._identity, self.options.path)
            self._use(header)
        complete = self.records is not None and self.records.complete(self._surroundings.views)
        if not all(all_gather_object(complete)) or self.weights_wanted:
            self.wake()
        else:
            assert self.records is not None
            self.fingerprint = self.records.header.about['fingerprint']
            text = f"{self.name}: the store '{self.options.path}' has all records; its weights are not loaded"
            print_log(text, 'current')

    def wake(self) -> None:
        """Have the weights."""
        if not self._loaded:
            with keep_random_state():
                super().load()
                if self.records is not None:
                    self._probe_all(self.records.header)

    def get_ready(self, like: Tensor, student: nn.Module | None = None, progress: Progress | None = None) -> None:
        """Be made cheaper, and begin the store where there is none; see :meth:`Frozen.get_ready`."""
        if not self.asleep:
            super().get_ready(like, student, progress)
            if self.records is None and self._surroundings is not None:
                self._begin(like)

    @torch.no_grad()
    def read(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """What is kept of each sample and view; (N, ...) float32.

        Raises:
            RuntimeError: If nobody told of the data, or a sample does not tell what it is.
            ValueError: If images have another size than those of the store.
        """
        if batch.is_example:
            self._get_up(batch.images)
            return super().read(batch, taps)
        if self.records is None:
            raise RuntimeError(
                f"{self.name} has a store, and nobody told it of the training data: add dict(type='DistillHook') to "
                'custom_hooks (tools/train.py adds it)'
            )
        header, images = self.records.header, batch.images
        if tuple(images.shape[1:]) != header.images:
            raise ValueError(
                f'{self.name}: images of {tuple(images.shape[1:])} given, those of its store are {header.images}: '
                'one size for all is needed, because padding shows in what a network computes'
            )
        view, indices = drawn(batch.data_samples, len(images), self.name)
        records, whole = self.records.read(view, indices)
        if not whole.all():
            self._fill(batch, view, indices, records, ~whole)
        return {tap: self._decoded(tap, records[str(tap)]).to(images.device, non_blocking=True) for tap in taps}

    def computed(self, batch: Batch) -> np.ndarray[Any, Any]:
        """Records (N,) of a batch as they would be written, whatever is there."""
        assert self.records is not None
        self._get_up(batch.images)
        forms = self.records.header.forms
        with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
            values = super().read(batch, self.wanted)
        records = np.zeros(len(batch.images), self.records.layout)
        for tap, value in values.items():
            try:
                records[str(tap)] = forms[str(tap)].encode(value)
            except FloatingPointError as error:
                raise FloatingPointError(f"'{tap}' of {self.name}: {error}") from error
        return records

    def _fill(
        self, batch: Batch, view: int, indices: np.ndarray[Any, Any], records: np.ndarray[Any, Any], missing: Any
    ) -> None:
        assert self.records is not None
        if torn := int(self.records.written(view)[indices[missing]].sum()):
            text = f"{self.name}: {torn} records of view {view} in '{self.options.path}' are damaged and made anew"
            print_log(text, 'current', logging.WARNING)
        fresh = self.computed(batch)
        records[missing] = fresh[missing]
        self.records.write(view, indices[missing], fresh[missing])

    def _get_up(self, like: Tensor) -> None:
        if self.asleep:
            text = f"{self.name}: the store '{self.options.path}' lacks what is asked now; its weights are loaded"
            print_log(text, 'current', logging.WARNING)
            self.wake()
            self.get_ready(like)

    def _decoded(self, tap: Tap, records: np.ndarray[Any, Any]) -> Tensor:
        assert self.records is not None
        header = self.records.header
        value = header.forms[str(tap)].decode(records, self._temperatures.get(tap))
        last = str(tap) in header.about['channels_last']
        return value.contiguous(memory_format=torch.channels_last) if last else value

    def _identify(self) -> dict[str, Any]:
        """What the records depend on."""
        assert self._surroundings is not None
        spec = self._spec
        architecture = describe(spec.architecture) if spec.architecture else repr(spec.model).splitlines()
        return {
            'seeds': SEEDS,
            'seed': self.options.seed,
            'data': self._surroundings.data,
            'pipeline': self._surroundings.pipeline,
            'preprocessing': self._preprocessing,
            'teacher': {
                'weights': self._digest(),
                'config': architecture,
                'optimize': spec.optimize,
                'precision': 'fp32' if spec.precision is None else str(spec.precision.dtype).removeprefix('torch.'),
                'compile': spec.compile,
                'state_key': spec.state_key,
                'revise_keys': describe(spec.revise_keys),
            },
            'versions': versions(),
        }

    def _digest(self) -> str:
        """A digest of the file, or of the weights where there is none."""
        source = self._spec.checkpoint
        if source is not None and not self.partial:
            path = local_path(source)
            if path is None and source.startswith(('http://', 'https://')):
                path = downloaded(source)
            if path is not None:
                self._spec = replace(self._spec, checkpoint=str(path))  # one process may have to read it alone
                return f'file {sha256_of_file(path)}'
            self.wake()
        return f'weights {sha256_of_weights(self.model.state_dict())}'

    def _use(self, header: Header) -> None:
        """Answer from a store.

        Raises:
            ValueError: If it keeps something else than is read.
            OSError: If the disk has no room for what is missing.
        """
        assert self._surroundings is not None
        read = {str(tap): self._temperatures.get(tap) for tap in self.wanted}
        header.check_read(read, self.options, self._surroundings.images)
        self.records = Records(self.options.path, header)
        told = self.records.check_room(self._surroundings.views)
        print_log(f"{self.name}: the store '{self.options.path}' takes {told}", 'current')

    def _probe_all(self, header: Header) -> None:
        """Be ready to compute all that the store keeps, of which this run may read a part."""
        taps = {Tap.parse(tap): None for tap in header.forms}
        if taps.keys() != self.wanted.keys():
            super().probe(Batch.example(torch.zeros(2, *header.images)), taps)

    def _begin(self, like: Tensor) -> None:
        """Make a store, now that it is known what will be kept."""
        assert self._surroundings is not None
        images = torch.zeros(2, *self._surroundings.images, device=like.device)
        with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
            values = self._run(self._shown(images.to(like), None), self.taps, {})
        header = Header(
            self._identity,
            self._surroundings.data['entries'],
            self._surroundings.images,
            {str(tap): self._form(tap, value) for tap, value in values.items()},
            {
                'channels_last': [str(tap) for tap, value in values.items() if _is_channels_last(value)],
                'fingerprint': self.fingerprint,
                'classes': self.classes,
                'device': str(like.device.type),
            },
        )
        if header.payload > self.options.record_limit:
            shapes = {tap: form.shape for tap, form in header.forms.items()}
            raise ValueError(
                f'{self.name}: {shapes} take {size(header.payload)} for each sample and view, more than '
                f'record_limit={self.options.record_limit}: tap pooled vectors or small maps, or give a larger limit'
            )
        there = header.publish(self.options.path)  # of whoever was first
        there.check(header.identity, self.options.path)
        self._use(there)

    def _form(self, tap: Tap, value: Tensor) -> Form:
        """In which a tap is kept; of two images."""
        who = f"'{tap}' of {self.name}"
        if len(value) != 2:
            raise ValueError(
                f'{who} gives {tuple(value.shape)} for 2 images, no row for each: a store keeps samples apart'
            )
        own = self._temperatures.get(tap)
        temperatures = sorted({*self.options.temperatures, *([] if own is None else [own])})
        logits = self._of_logits.get(tap, False)
        try:
            return choose_form(tuple(value.shape[1:]), self.options, logits, temperatures)
        except ValueError as error:
            raise ValueError(f'{who}: {error}') from error


def _is_channels_last(value: Tensor) -> bool:
    last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
    return last and not value.is_contiguous()
