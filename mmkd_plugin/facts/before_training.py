"""What is known before training: the networks with their weights, and the training data."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..datasets.indexed import find_owner
from ..networks import Tap, find_module


class TapShape(tuple[int, ...]):
    """The shape of a tapped value, batch first, that knows where it was read.

    Attributes:
        tap: Where.
        model: The network of that; a teacher's weights are not loaded yet.
    """

    tap: Tap | None = None
    model: Any = None

    @classmethod
    def of(cls, value: Tensor, tap: Tap, model: nn.Module) -> 'TapShape':
        """The shape of a value that was read."""
        shape = cls(value.shape)
        shape.tap, shape.model = tap, model
        return shape

    def numel(self) -> int:
        """Product of all sides, as of ``torch.Size``."""
        return math.prod(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[int, ...]:
        return tuple(self)  # a loss that keeps it keeps no network in its copies

    def __reduce__(self) -> Any:
        return tuple, (tuple(self),)

    @property
    def module(self) -> nn.Module:
        """The module that was tapped.

        Raises:
            ValueError: If it was not read anywhere.
        """
        if self.tap is None:
            raise ValueError('this shape was made by hand, and belongs to no module')
        return find_module(self.model, self.tap.path, 'network')


class TrainingData:
    """The training data, as far as losses ask: how many samples there are, and of which classes.

    Args:
        dataset: mmengine's, or its wrappers; None where nobody told, which is said when somebody asks.
    """

    def __init__(self, dataset: Any = None) -> None:
        self._dataset = dataset
        self._labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self._told())

    def labels(self) -> Tensor:
        """The class of each sample in the order of ``sample_idx``, (samples,) int64; read once from the annotations.

        Raises:
            ValueError: If a sample has no class of its own, or nobody told of the data.
        """
        if self._labels is None:
            dataset, found = self._told(), []
            for index in range(len(dataset)):
                owner, place = find_owner(dataset, index)
                if not hasattr(owner, 'get_data_info'):
                    raise ValueError(
                        f'the class of each training sample is needed, and {type(owner).__name__} does not tell it '
                        "without loading: expected mmengine's BaseDataset, or its wrappers of such"
                    )
                label = owner.get_data_info(place).get('gt_label')
                if label is None or np.size(label) != 1:
                    raise ValueError(
                        f'the class of each training sample is needed, and sample {index} has gt_label={label!r}'
                    )
                found.append(int(np.asarray(label).reshape(())))
            self._labels = torch.tensor(found, dtype=torch.int64)
        return self._labels

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What there is to be told apart, as the data say; None where they do not, or nobody told of them."""
        classes = (getattr(self._dataset, 'metainfo', None) or {}).get('classes')
        return tuple(map(str, classes)) if isinstance(classes, (list, tuple)) else None

    def check_old(self, classes: Sequence[str] | None, who: str) -> None:
        """See that the classes of an older network are the first ones of these data.

        Args:
            classes: As its checkpoint says; None where it does not, which is told.
            who: What the network is called.

        Raises:
            ValueError: If they are others, or in another order.
        """
        known = self.classes
        if classes is None or known is None:
            which = f'the checkpoint of {who} does not say its' if classes is None else 'the training data say no'
            print_log(f'{which} classes: nobody knows whether those of {who} are the first ones', 'current', WARNING)
        elif tuple(classes) != known[: len(classes)]:
            first = next((i for i, pair in enumerate(zip(classes, known, strict=False)) if pair[0] != pair[1]), None)
            where = f'it has no class {len(known)}' if first is None else f'class {first} is {known[first]!r} here'
            told = classes[len(known) if first is None else first]
            raise ValueError(
                f'{who} was trained on the classes {list(classes)}, and they are not the first ones of the training '
                f"data's {list(known)}: {where}, and {told!r} there. Give the data metainfo=dict(classes=...) with all "
                'of the old classes, in their order, and the new ones behind'
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> 'TrainingData':
        return self

    def __reduce__(self) -> Any:
        return TrainingData, ()  # a pickled model takes no data along

    def _told(self) -> Any:
        if self._dataset is None:
            raise ValueError(
                "a loss asks for the training data, and nobody told of them: add dict(type='DistillHook') to "
                'custom_hooks (tools/train.py adds it), or in your own loop set model.distill.data = '
                'mmkd_plugin.facts.TrainingData(dataset)'
            )
        return self._dataset


class KnownNetworks(Mapping[str, Any]):
    """Networks by side, of which some cannot be had: what a loss took over from them once would soon be wrong.

    Args:
        networks: By side.
        changing: Those whose weights change while they teach.
    """

    def __init__(self, networks: Mapping[str, Any], changing: Collection[str] = ()) -> None:
        self._networks = dict(networks)
        self._changing = changing

    def __getitem__(self, side: str) -> Any:
        if side in self._changing:
            raise ValueError(
                f"it takes something over from the weights of '{side}' before training, and these change while it "
                'teaches: use a teacher that stays as it is, or another loss'
            )
        return self._networks[side]

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)


@dataclass(frozen=True)
class Facts:
    """What a loss learns once, when the weights are loaded, before batch norms are folded.

    Args:
        networks: By side of the loss (``student``, a source's name), the whole network.
        taps: By side, where the loss reads, in order.
        data: The training data.
        classes: By side, what a source was trained to tell apart, where it says so.
    """

    networks: Mapping[str, nn.Module]
    taps: Mapping[str, Sequence[Tap]]
    data: TrainingData
    classes: Mapping[str, Sequence[str] | None] = field(default_factory=dict)

    def modules(self, side: str) -> list[nn.Module]:
        """The modules that are tapped on a side."""
        return [find_module(self.networks[side], tap.path, side) for tap in self.taps[side]]
