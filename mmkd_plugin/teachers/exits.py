"""Exits: classifiers after a student's own stages, which learn beside it and vanish when it is trained."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..facts import Batch
from ..losses.norms import ConnectorNorm2d
from ..networks import Tap, Taps, dry_run, network_of
from .source import SOURCES, Source, Wanted

_EXAMPLE = "dict(type='Exits', after=['backbone.layer1', 'backbone.layer2', 'backbone.layer3'], to='backbone.layer4')"


@SOURCES.register_module()
class Exits(Source):
    """Classifiers after stages of the student, which learn from the labels and from the deepest classifier.

    L. Zhang, J. Song, A. Gao, J. Chen, C. Bao, K. Ma, "Be Your Own Teacher: Improve the Performance of Convolutional
    Neural Networks via Self Distillation" (BYOT), ICCV 2019, arXiv 1905.08094. Each exit is a ``bottleneck``, which
    brings the map of its stage to the channels and size of the deepest one, a ``pool`` over positions, and a classifier
    ``fc``. It reads the map in the student's own pass, with gradient, so that what exits learn trains the stages too.
    ``mmkd_plugin.losses.KDLoss`` and ``FitNetLoss(regressor='identity')`` with ``learner='exits'`` are the other two
    terms of the paper::

        teachers=dict(exits=dict(type='Exits', after=['backbone.layer1', 'backbone.layer2', 'backbone.layer3'],
                                 to='backbone.layer4', task_loss=dict(loss_weight=0.7)))
        loss_kd=dict(type='KDLoss', learner='exits', on=dict(exits=['0.fc', ...], student=['head.fc', ...]), ...)

    In the taps of losses an exit is called by its number in ``after``: ``0.bottleneck``, ``0.pool``, ``0.fc``. The
    source ``student`` is the deepest exit, as a constant. The log calls the exits' own losses ``exits.0.loss`` ...;
    their sum is what ``task_loss`` weights, each the mean over the batch. Parameters are ``distill.peers.exits.…``, in
    the run's checkpoints and not in the student's slim one: without them the student's output is the same.

    A bottleneck is one separable convolution for each halving of the map's size (depthwise 3x3 with stride 2 and 1x1,
    then once more with stride 1, each pair with batch norm and ReLU), as in code of the authors; each doubles the
    channels, and the last gives those of ``to``. Where the sizes are equal there is one, with stride 1. Deviations: no
    attention before it, which mmrazor adds; and batch norms leave a single value as :class:`ConnectorNorm2d` does.

    For classifiers with one class for each image: a detector has no deepest classifier of a whole image.

    Args:
        name: Its key in ``teachers``.
        stages: Where each exit reads.
        model: The exits, in the same order.
        task_loss: ``dict(loss_weight=1.0, schedule=dict(...))`` for their losses with the labels.
    """

    keys: ClassVar[tuple[str, ...]] = ('after', 'to', 'task_loss', 'input_shape')
    learns: ClassVar[bool] = True

    def __init__(self, name: str, stages: Sequence[Tap], model: nn.ModuleList, task_loss: Any = None) -> None:
        super().__init__(name)
        self.stages = list(stages)
        self.model = model
        self.task_loss = task_loss

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], name: str, student: nn.Module) -> 'Exits':
        """Exits with the shapes of a dry run of the student; see :class:`Source`.

        Args:
            spec: ``after``, paths of the stages that have an exit; ``to``, that of the deepest map; ``task_loss``; and
                ``input_shape``, (C, H, W) of the dry run, inferred where it is not given.
            name: Its key in ``teachers``.
            student: Built.

        Raises:
            ValueError: If the student is no such classifier, its labels are soft, a stage does not exist, comes twice
                or does not lie before the deepest one, or its map cannot be halved to that one's size.
        """
        who = f'{name} (Exits)'
        after, to = _read_paths(spec, who)
        network = network_of(student)
        classifier = network.classifier()
        if classifier is None or network.branches():
            raise ValueError(
                f'{who}: the student is a {type(student).__name__}, expected an image classifier with a linear '
                'classifier head.fc, which the exits learn from: BYOT is for classifiers'
            )
        network.check_logits(classifier, who)
        if network.softens_labels:
            raise ValueError(
                f"{who} needs one class per image, and the student's data preprocessor makes soft labels (mixup, "
                'cutmix or to_onehot): remove train_cfg.augments / batch_augments / to_onehot'
            )
        shape = spec.get('input_shape') or network.input_shape()
        like = next(student.parameters())
        images = torch.zeros(2, *shape).to(like)
        try:
            recorded, _ = dry_run(network, images, [*after, to, classifier])
        except ValueError as error:
            raise ValueError(f'{who}: {error}; exits have an input_shape of their own') from error
        values, order = recorded.values(), recorded.in_order()
        for tap in (*after, to):
            if values[tap].ndim != 4:
                raise ValueError(
                    f"{who}: '{tap}' has the shape {tuple(values[tap].shape)}, expected a map (N, C, H, W): exits "
                    'stand after stages of the backbone'
                )
        if late := [str(tap) for tap in after if order.index(tap) > order.index(to)]:
            raise ValueError(
                f"{who}: {late} are computed after to='{to}', expected stages before it: to is the deepest map"
            )
        classes = values[classifier].size(1)
        exits = nn.ModuleList(_exit(values[tap], values[to], classes, f"{who}: '{tap}'") for tap in after)
        return cls(name, after, exits.to(like), spec.get('task_loss'))

    def asks_student(self, taps: Iterable[Tap]) -> list[Tap]:
        """Its stages, whatever is read of it."""
        return list(self.stages)

    def probe(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """A pass in evaluation mode, on what the student's dry run gave."""
        self.model.eval()
        with torch.no_grad():
            recorded, _ = self._run(batch, taps)
        self.model.train()
        return recorded.values()

    def learn(self, batch: Batch, taps: Iterable[Tap]) -> dict[str, Any]:
        """A pass on the stages of the student's own; tapped values go into the batch, with gradient.

        Returns:
            By exit, the cross-entropy with the labels, mean over the batch.
        """
        labels = batch.get('labels')
        recorded, scores = self._run(batch, taps)
        batch.values[self.name] = recorded.values()
        return {f'{number}.loss': F.cross_entropy(logits, labels) for number, logits in enumerate(scores)}

    def read(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """What they computed in :meth:`learn`, detached."""
        return {tap: batch.values[self.name][tap].detach() for tap in taps}

    def _run(self, batch: Batch, taps: Iterable[Tap]) -> tuple[Taps, list[Tensor]]:
        recorded = Taps(self.model, taps, self.name)
        own = batch.values['student']
        with recorded.recording():
            scores = [exit_(_fast(own[stage])) for exit_, stage in zip(self.model, self.stages, strict=True)]
        return recorded, scores


class SeparableConv(nn.Sequential):
    """Two depthwise 3x3 convolutions, each with a 1x1 convolution, batch norm and ReLU behind it.

    Args:
        in_channels: Of the map.
        out_channels: Of what comes out.
        stride: Of the first.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        layers: list[nn.Module] = []
        for width, step in ((in_channels, stride), (out_channels, 1)):
            layers += [
                nn.Conv2d(in_channels, in_channels, 3, step, padding=1, groups=in_channels, bias=False),
                nn.Conv2d(in_channels, width, 1, bias=False),
                ConnectorNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


def _exit(stage: Tensor, deepest: Tensor, classes: int, who: str) -> nn.Module:
    """From a stage's map (N, C, H, W) to logits (N, classes), through a map of the deepest one's shape."""
    channels, size = stage.size(1), tuple(stage.shape[2:])
    target_channels, target = deepest.size(1), tuple(deepest.shape[2:])
    halvings = 0
    while size != target and min(size) > 1:
        size = tuple((side + 1) // 2 for side in size)
        halvings += 1
    if size != target:
        raise ValueError(
            f'{who} is a map of {tuple(stage.shape[2:])} pixels, which halving does not bring to the {target} of the '
            'deepest one'
        )
    layers: list[nn.Module] = []
    for number in range(max(halvings, 1)):
        out = target_channels if number + 1 >= halvings else 2 * channels
        layers.append(SeparableConv(channels, out, 2 if halvings else 1))
        channels = out
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts = {'bottleneck': nn.Sequential(*layers), 'pool': pool, 'fc': nn.Linear(channels, classes)}
    return nn.Sequential(OrderedDict(parts))


def _fast(stage: Tensor) -> Tensor:
    """The map in the memory format that depthwise convolutions are fast in: on a CPU, channels last (half the time)."""
    return stage.contiguous(memory_format=torch.channels_last) if stage.device.type == 'cpu' else stage


def _read_paths(spec: Mapping[str, Any], who: str) -> tuple[list[Tap], Tap]:
    """Where exits stand, and what the deepest map is.

    Raises:
        ValueError: If nobody says so, or a stage comes twice.
    """
    after, to = spec.get('after'), spec.get('to')
    words = isinstance(after, (list, tuple)) and all(isinstance(path, str) for path in after)
    if not words or not after or not isinstance(to, str):
        raise ValueError(
            f'{who} has after={after!r} and to={to!r}, expected one path or more, and the one of the deepest map: '
            + _EXAMPLE
        )
    taps = [Tap.parse(path) for path in (*after, to)]
    if twice := [str(tap) for number, tap in enumerate(taps) if tap in taps[:number]]:
        raise ValueError(f"{who} names '{twice[0]}' twice in after={list(after)} and to='{to}', expected each once")
    return taps[:-1], taps[-1]
