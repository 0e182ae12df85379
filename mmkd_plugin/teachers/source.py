"""What every source of knowledge answers, whatever it is: a frozen network, the student itself, its peers, labels."""

import difflib
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar

from mmengine.registry import Registry
from torch import Tensor, nn

from ..facts import Batch, Progress
from ..networks import BoxBranch, Network, Tap, network_of

#: Kinds of sources by the name that a config gives as ``type``. A dictionary without one means ``Frozen``.
SOURCES = Registry('source of knowledge', scope='mmengine')

#: Taps that are read of a source, each with the student's box branch whose RoIs are its rows (None: images are).
Wanted = Mapping[Tap, BoxBranch | None]


class Source:
    """One source, as the losses of a config know it by name.

    A kind of its own derives from this, is registered in :data:`SOURCES`, and says what it needs of the student, and
    what it gives for a batch. It is no ``nn.Module``: optimizers, checkpoints, EMA and DDP see only the network of one
    that :attr:`learns`, and what it has :attr:`kept`.

    The order of calls: ``probe`` when the model is built; ``load``, then ``get_ready``, before training; in each step
    ``get_ready``, ``begin``, the student's pass, ``learn`` if it learns, and ``read`` if an active loss reads it.

    Args:
        name: Its key in ``teachers``.
    """

    #: Of what losses may ask for, what it asks of a batch.
    needs: tuple[str, ...] = ()
    #: Keys that a config may give besides ``type``.
    keys: ClassVar[tuple[str, ...]] = ()
    #: Whether its network is trained beside the student, with losses of its own (:meth:`learn`).
    learns: ClassVar[bool] = False
    #: The network, if it has one of its own.
    model: Any = None
    #: Of one that learns: weight and schedule of its own losses, as a config gives them.
    task_loss: Any = None
    #: What changes while it teaches and does not learn: checkpoints keep it, as ``distill.kept.<name>``.
    kept: nn.Module | None = None
    #: Another text for other weights; empty where it has none that were trained before.
    fingerprint: str = ''
    #: Whether somebody reads its weights besides what it says: it has to load them.
    weights_wanted: bool = False

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], name: str, student: nn.Module) -> 'Source':
        """Made of what a config says, without its ``type``; here, the keys are the arguments.

        Args:
            spec: Only :attr:`keys`.
            name: Its key in ``teachers``.
            student: Built.

        Raises:
            TypeError: If something is of another kind.
            ValueError: If a value is not understood.
            FileNotFoundError: If a file that is named does not exist.
        """
        return cls(name, **spec)

    @property
    def changes(self) -> bool:
        """Whether the weights that its taps lie in change while it teaches: losses take nothing over from these."""
        return self.model is None or self.learns or self.kept is not None

    def network(self, student: Network) -> Network:
        """Whose modules its taps name: its own network's, or else the student's."""
        return student if self.model is None else network_of(self.model, self.name)

    def asks_student(self, taps: Iterable[Tap]) -> list[Tap]:
        """What it wants tapped in the student's own pass; here, the same taps, unless it has a network of its own."""
        return list(taps) if self.model is None else []

    @property
    def apart(self) -> bool:
        """Of one that learns, whether its losses reach only itself: it goes on from nothing of the student's pass."""
        return not self.asks_student(())

    def read_by(self, who: str, taps: Iterable[Tap], loss: Any) -> None:
        """Hear which loss will read what, when the model is built and before :meth:`probe`.

        Args:
            who: What the loss is called in errors.
            taps: Where it reads this source.
            loss: The :class:`~mmkd_plugin.losses.DistillLoss`.

        Raises:
            ValueError: If it cannot be taught by this source.
        """

    def probe(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """Example values when the model is built: to learn shapes, and to find mistakes; here, what it would read.

        Args:
            batch: Of images that nobody labelled.
            taps: Everything that will ever be read.

        Raises:
            ValueError: If a tap names no module, or none that runs.
        """
        return self.read(batch, taps)

    def load(self) -> None:
        """Get the weights, once, before training.

        Raises:
            FileNotFoundError: If a checkpoint does not exist.
            ValueError: If it cannot be read or does not fit.
        """

    def get_ready(self, like: Tensor, student: nn.Module, progress: Progress | None) -> None:
        """Be ready for a step.

        Args:
            like: Of the device and dtype that it will meet, which costs a comparison.
            student: As the last update left it.
            progress: How far the run is; None before training, when there may be no step at all.
        """

    def begin(self, batch: Batch, taps: Wanted) -> None:
        """Begin to read, before the student's pass, where that gains something; by default, nothing.

        Args:
            batch: Of which nothing is computed yet.
            taps: What :meth:`read` may be asked for.
        """

    def learn(self, batch: Batch, taps: Iterable[Tap]) -> dict[str, Any]:
        """Of one that learns, its own training pass: tapped values go into the batch, with gradient.

        Returns:
            Its losses, as it calls them.
        """
        raise NotImplementedError(f'{type(self).__name__} does not say how it learns')

    def read(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """The tapped values for a batch, as constants.

        Args:
            batch: With what the student computed of it.
            taps: What to read; some of those that were probed.
        """
        raise NotImplementedError(f'{type(self).__name__} does not say how it is read')

    def read_through(self, batch: Batch, taps: Wanted, written: Mapping[Tap, Tensor]) -> dict[Tap, Tensor]:
        """The tapped values of a pass that goes on with other tensors where they are written, with gradient into these.

        Raises:
            ValueError: If it does not do that.
        """
        raise ValueError(f"'{self.name}' ({type(self).__name__}) sends nothing through; a frozen teacher does")


def check_apart(networks: Mapping[str, Any]) -> None:
    """See that networks share nothing: one would change while it teaches the other.

    Args:
        networks: By name, the student first; None for a source without one.

    Raises:
        ValueError: If two share modules or weights.
    """
    seen: dict[int, str] = {}
    for name, network in networks.items():
        own = {id(part) for parts in (network.modules(), network.parameters()) for part in parts} if network else ()
        if others := {seen[part] for part in own if part in seen}:
            raise ValueError(
                f'the {name} is, or shares modules or weights with, the {min(others)}: it would change while '
                'it teaches. Pass a copy.deepcopy of it, or a config and a checkpoint'
            )
        seen |= dict.fromkeys(own, name)


def follow(module: nn.Module, like: Tensor) -> None:
    """Bring a module to the device and dtype of a tensor, which costs a comparison where it is there."""
    own = next(chain(module.parameters(), module.buffers()), like)
    dtype = like.dtype if like.is_floating_point() else own.dtype  # raw uint8 images say nothing of weights
    if own.device != like.device or own.dtype != dtype:
        module.to(like.device, dtype)


def build_source(spec: Any, name: str, student: nn.Module) -> Source:
    """The source that a config means.

    Args:
        spec: A dictionary with the ``type`` of a registered kind; anything else is what a frozen teacher is given as.
        name: Its key in ``teachers``.
        student: Built; stays as it is.

    Raises:
        TypeError: If something is of another kind.
        ValueError: If the kind, a key or a value is not understood.
        FileNotFoundError: If a file that is named does not exist.
    """
    if isinstance(spec, Source):
        return spec
    if isinstance(spec, str) and spec in SOURCES.module_dict:
        raise ValueError(f"{name}={spec!r} given, which is a kind of teacher: say dict(type='{spec}', ...)")
    if not isinstance(spec, Mapping) or 'type' not in spec:
        return SOURCES.module_dict['Frozen'].from_spec(spec, name, student)
    arguments = dict(spec)
    kind = arguments.pop('type')
    known: dict[str, type[Source]] = SOURCES.module_dict
    source = kind if isinstance(kind, type) and issubclass(kind, Source) else known.get(kind)
    if source is None:
        near = difflib.get_close_matches(str(kind), known, n=1)
        raise ValueError(
            f'{name} has type={kind!r}, which is no kind of teacher'
            + (f' (did you mean {near[0]}?)' if near else '')
            + f'. Known: {", ".join(known)}. The network of a frozen one goes into model=dict(type=...), with its '
            'checkpoint beside that'
        )
    if 'store' in arguments and 'store' not in source.keys:
        raise ValueError(
            f'{name} ({source.__name__}) has a store, and only what a frozen teacher says of a view stays true: drop '
            'store, or '
            'teach by a frozen teacher, dict(config=..., checkpoint=..., store=...)'
        )
    if unknown := [key for key in arguments if key not in source.keys]:
        near = difflib.get_close_matches(str(unknown[0]), source.keys, n=2)
        raise ValueError(
            f'{name} ({source.__name__}) has the unknown keys {unknown}'
            + (f' (did you mean {" or ".join(near)}?)' if near else '')
            + f'. Known: {", ".join(source.keys) or "none"}'
        )
    return source.from_spec(arguments, name, student)
