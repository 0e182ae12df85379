"""A peer: another student that learns beside it, from the same batches."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from mmengine.model import BaseModel
from torch import Tensor, nn

from ..facts import Batch, Progress
from ..files.checkpoint import fingerprint
from ..networks import Tap, Taps, dry_run, network_of
from .network_spec import NETWORK_KEYS, TeacherSpec, build_teacher
from .preprocessing import Renormalize
from .source import SOURCES, Source, Wanted, check_apart, follow


@SOURCES.register_module()
class Peer(Source):
    """A student that is trained with this one, and teaches it what it has learned so far.

    Y. Zhang, T. Xiang, T. Hospedales, H. Lu, "Deep Mutual Learning", CVPR 2018, arXiv 1706.00384, where all are updated
    from one forward pass of each (the paper updates them in turn, and predicts anew in between, as
    :class:`~mmkd_plugin.hooks.InTurnHook` does).

    ``teachers=dict(peer=dict(type='Peer', model=dict(type='ImageClassifier', ...)))``. It has the student's own kind of
    task loss, on the same images and labels, which the log calls ``peer.loss``. A loss teaches the student, with
    ``learner='peer'`` the peer, or with ``learner='each'`` everybody; what the other side gives is a constant. Its
    parameters are ``distill.peers.peer.…`` (``paramwise_cfg=dict(custom_keys=...)`` gives them settings of their own),
    in the run's checkpoints but not in the student's slim one; ``tools/publish_model.py --peer peer`` writes it as a
    plain model.

    In detectors, peers can be compared where a row is an image (backbone, neck, dense heads): each samples RoIs of its
    own.

    Args:
        name: Its key in ``teachers``.
        spec: The network, and the weights that it starts from, if it has some.
        student: Whose data preprocessor decides how batches are re-normalised.
        task_loss: ``dict(loss_weight=1.0, schedule=dict(...))`` for its own losses.

    Raises:
        TypeError: If the network is no ``BaseModel``.
        ValueError: If its preprocessing cannot be matched, or it shares weights with the student.
    """

    keys: ClassVar[tuple[str, ...]] = (*NETWORK_KEYS, 'task_loss')
    learns: ClassVar[bool] = True

    def __init__(self, name: str, spec: TeacherSpec, student: nn.Module, task_loss: Any = None) -> None:
        super().__init__(name)
        if not isinstance(spec.model, BaseModel):
            raise TypeError(
                f'{name} (Peer) is a {type(spec.model).__name__}, expected a mmengine BaseModel, which has losses of '
                'its own to learn from'
            )
        check_apart({'student': student, name: spec.model})
        self.model: Any = spec.model
        self.task_loss = task_loss
        self._spec = spec
        self._renormalize = Renormalize(
            getattr(student, 'data_preprocessor', None), getattr(spec.model, 'data_preprocessor', None), name
        )
        self._clone: set[Tap] = set()
        self._built = fingerprint(spec.model.state_dict())

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], name: str, student: nn.Module) -> 'Peer':
        """A network as a frozen teacher's is given, but weights are optional; see :class:`Source`."""
        spec = dict(spec)
        task_loss = spec.pop('task_loss', None)
        return cls(name, build_teacher(spec, name, student, trained=False), student, task_loss)

    def probe(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """A dry run of its own.

        Raises:
            ValueError: As every source; if a row of a tap is an RoI.
        """
        network = network_of(self.model, self.name)
        for tap in taps:
            if network.rows(tap) is not None:
                raise ValueError(
                    f"'{tap}' of {self.name} (Peer) has a row for each RoI, and each peer samples RoIs of its own: "
                    'compare backbones, necks or dense heads'
                )
        own = next(self.model.parameters(), batch.images)
        recorded, self._clone = dry_run(network, batch.images.to(own), taps)
        return {tap: value.to(batch.images.device) for tap, value in recorded.values().items()}

    def load(self) -> None:
        """Initialise it as its config says, or from the checkpoint that it starts from.

        Weights that somebody gave it since it was built stay.
        """
        if self._spec.built or fingerprint(self.model.state_dict()) != self._built:
            return
        if self._spec.checkpoint is None:
            self.model.init_weights()
        else:
            self._spec.load_weights()

    def get_ready(self, like: Tensor, student: nn.Module, progress: Progress | None) -> None:
        """The constants of its preprocessing follow; the network is a part of the student, and follows that."""
        follow(self._renormalize, like)

    def learn(self, batch: Batch, taps: Iterable[Tap]) -> dict[str, Any]:
        """Its own training pass: tapped values go into the batch, with gradient.

        Returns:
            Its losses, as it calls them.
        """
        recorded = Taps(self.model, taps, self.name, self._clone)
        images = self._renormalize(batch.images, batch.sizes)
        with recorded.recording():
            losses = self.model(images, copy.copy(batch.data_samples), mode='loss')
        batch.values[self.name] = recorded.values()
        return dict(losses)

    def read(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """What it computed in :meth:`learn`, detached."""
        return {tap: batch.values[self.name][tap].detach() for tap in taps}
