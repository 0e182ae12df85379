"""The one face of a network: how it runs as far as somebody reads it, and what the values mean.

Everything that has to know what kind of network a student or a teacher is asks here. A kind that needs more than
images in and values out is one more subclass, listed in kinds.py.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from .dense_heads import DenseGrid
from .recording import Taps
from .regions import BoxBranch
from .taps import Tap, find_module


class Network:
    """A network of images: mmpretrain's classifiers, and any module that takes a batch of images.

    Args:
        model: The network itself.
        side: What it is called in errors: ``student`` or a teacher's name.
    """

    def __init__(self, model: Any, side: str) -> None:
        self.model = model
        self.side = side

    @classmethod
    def is_kind_of(cls, model: nn.Module) -> bool:
        """Whether a module is of this kind."""
        return True

    def run(
        self, images: Tensor, paths: Collection[str] | None = None, rois: Mapping[BoxBranch, Tensor] | None = None
    ) -> None:
        """A pass for the sake of its taps: no losses, no post-processing.

        Args:
            images: (N, C, H, W).
            paths: Modules that are read, where the network can leave parts out; None is all.
            rois: What the box branches of a two-stage detector score.
        """
        if isinstance(self.model, BaseModel):
            self.model(images, mode='tensor')
        else:
            self.model(images)

    def rows(self, tap: Tap) -> BoxBranch | None:
        """What a row of a tapped value is: an RoI of a box branch, or (None) an image.

        Raises:
            ValueError: If there is no such module, or if what it computes cannot be compared.
        """
        find_module(self.model, tap.path, self.side)
        return None

    def branches(self) -> list[BoxBranch]:
        """All of its box branches."""
        return []

    def check_read(self, recorded: Taps, again: Callable[[], Taps]) -> None:
        """Refuse taps that would be read wrongly.

        Args:
            recorded: Of a whole pass in evaluation mode.
            again: Makes another such pass.

        Raises:
            ValueError: If one would.
        """

    def check_logits(self, tap: Tap, who: str) -> None:
        """Refuse a tap that is known to read no scores of classes that exclude each other; tell where nobody knows.

        Args:
            tap: What is read.
            who: What compares predictions by their softmax, such as ``losses['loss_kd'] (KDLoss)``.

        Raises:
            ValueError: If it reads something else.
        """
        head: Any = getattr(self.model, 'head', None)
        if isinstance(head, nn.Module) and hasattr(self.model, 'backbone'):
            self._check_classifier(head, tap, who)
        elif not isinstance(find_module(self.model, tap.path, self.side), nn.Linear):
            tell(f"{who} compares class scores, and nobody knows whether '{tap}' of the {self.side} reads some")
        self._check_sigmoid(getattr(head, 'loss_cls', None) or getattr(head, 'loss_module', None), tap, who)

    def _check_sigmoid(self, loss: Any, tap: Tap, who: str) -> None:
        if getattr(loss, 'use_sigmoid', False):
            tell(
                f"{who} takes a softmax over '{tap}' of the {self.side}, whose own loss takes the sigmoid of each class"
            )

    def _check_classifier(self, head: nn.Module, tap: Tap, who: str) -> None:
        """Of image classifiers as mmpretrain makes them."""
        if any(cls.__name__ == 'MultiLabelClsHead' for cls in type(head).__mro__):
            raise ValueError(
                f"{who} takes a softmax over classes, and those of the {self.side}'s {type(head).__name__} do not "
                'exclude each other; use a feature loss'
            )
        module, classes = find_module(self.model, tap.path, self.side), getattr(head, 'num_classes', None)
        scores = any(isinstance(m, nn.Linear) and m.out_features == classes for m in module.modules())
        if not tap.below('head') and any(True for _ in head.parameters()):
            if not scores and tap.below('backbone', 'neck'):
                raise ValueError(
                    f"{who} compares class scores, and '{tap}' of the {self.side} lies before the classifier "
                    f"({type(head).__name__} in 'head'): tap that, such as 'head.fc'; tools/list_modules.py lists "
                    'modules'
                )
            if not scores:
                tell(f"{who} compares class scores, and nobody knows whether '{tap}' of the {self.side} reads some")
        elif isinstance(module, nn.Linear) and not tap.of_input and classes and module.out_features != classes:
            raise ValueError(
                f"{who} compares class scores, and '{tap}' of the {self.side} reads {module.out_features} values for "
                f'{classes} classes: tap the classifier itself'
            )

    def check_labels(self, tap: Tap, who: str) -> None:
        """Refuse a tap whose rows have no class of their own.

        Raises:
            ValueError: If they have none.
        """

    def count_levels(self, tap: Tap) -> int:
        """On how many feature levels the dense head runs that a tap names as a whole; 0 if it names something else."""
        return 0

    def cut(self, tap: Tap, branches: Sequence[str], after: int, who: str) -> list[Tap]:
        """What the branches of a dense head have after some of their convolutions, branch by branch and level by level.

        Args:
            tap: The head.
            branches: Of ``cls_convs`` and ``reg_convs``.
            after: How many convolutions; 0 is what the branch takes in.
            who: What reads it, for errors.

        Raises:
            ValueError: If the head has no such branches, or shorter ones.
        """
        raise ValueError(f"{who} cuts dense heads of detectors, and '{tap}' of the {self.side} is none")

    def short_pass(self, written: Mapping[Tap, Tensor], read: Iterable[Tap]) -> Callable[[], None] | None:
        """A pass that gives what is read, where it follows from what is written; None where nobody knows one."""
        return None

    def dense_grid(self, taps: Sequence[Tap], outputs: Sequence[str], who: str, read: bool = True) -> DenseGrid:
        """The grid of the dense head that some taps lie in.

        Args:
            taps: All levels of each output, in order.
            outputs: What these are to be, see ``DistillLoss.dense_outputs``.
            who: What reads them, for errors.
            read: Whether these outputs are read there; otherwise the taps may lie anywhere in the head.

        Raises:
            ValueError: If they read something else.
        """
        raise ValueError(f"{who} compares dense heads of detectors, and '{taps[0]}' of the {self.side} lies in none")

    #: Whether batch augmentations of its kind mix images, and do not only resize them.
    mixes_by_batch: ClassVar[bool] = True

    @property
    def mixes_images(self) -> bool:
        """Whether its data preprocessor mixes images."""
        preprocessor = getattr(self.model, 'data_preprocessor', None)
        return self.mixes_by_batch and getattr(preprocessor, 'batch_augments', None) is not None

    @property
    def softens_labels(self) -> bool:
        """Whether its data preprocessor leaves an image without the one class that it is of."""
        preprocessor = getattr(self.model, 'data_preprocessor', None)
        return self.mixes_images or bool(getattr(preprocessor, 'to_onehot', False))

    def assigned_at(self, taps: Iterable[Tap]) -> dict[str, Tap]:
        """By head that some taps lie in, where its own loss is told which class each position was assigned."""
        return {}

    def classifier(self) -> Tap | None:
        """Where its predictions are read; None where nobody knows."""
        fc = getattr(getattr(self.model, 'head', None), 'fc', None)
        return Tap('head.fc') if isinstance(fc, nn.Module) else None

    def num_classes(self) -> int | None:
        """How many classes it tells apart; None where nobody knows."""
        number = getattr(getattr(self.model, 'head', None), 'num_classes', None)
        return number if isinstance(number, int) else None

    def rows_of(self, old: 'Network') -> dict[str, Tensor]:
        """Where the rows of an older network's classifier are in this one's, which may tell more classes apart.

        Args:
            old: Of the same architecture; its classes are the first ones.

        Returns:
            By name of a parameter that grows, the row of each old row, int64; empty where none does.

        Raises:
            ValueError: If the older one knows more classes, or the classifier is none that is known to grow.
        """
        own, before = self.num_classes(), old.num_classes()
        if own is None or before is None or own == before:
            return {}
        if own < before:
            raise ValueError(
                f'the {self.side} tells {own} classes apart and {old.side} {before}, and it has to know all of the '
                'old ones, with its new ones behind: give it more'
            )
        return self._rows_of(before, own)

    def _rows_of(self, before: int, own: int) -> dict[str, Tensor]:
        head = self.model.head
        found = [name for name, m in head.named_modules() if isinstance(m, nn.Linear) and m.out_features == own]
        if not found:
            raise ValueError(
                f"the {self.side}'s {type(head).__name__} cannot grow from {before} to {own} classes: it has no linear "
                'layer with a row for each class'
            )
        return {f'head.{name}.{key}': torch.arange(before) for name in found for key, _ in self._own(f'head.{name}')}

    def _own(self, path: str) -> list[tuple[str, nn.Parameter]]:
        """The parameters of a module itself."""
        return list(self.model.get_submodule(path).named_parameters(recurse=False))

    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of images that it can be tried on: channels as normalised, the backbone's own size or 224."""
        mean = getattr(getattr(self.model, 'data_preprocessor', None), 'mean', None)
        channels = mean.numel() if isinstance(mean, Tensor) and mean.numel() > 1 else self._channels()
        size: Any = getattr(getattr(self.model, 'backbone', None), 'img_size', 224)
        height, width = (size, size) if isinstance(size, int) else tuple(size)[:2]
        return channels, height, width

    def input_shapes(self) -> list[tuple[int, int, int]]:
        """Those that are worth a try, in their order: here, the one."""
        return [self.input_shape()]

    def _channels(self) -> int:
        return next((m.in_channels for m in self.model.modules() if isinstance(m, nn.Conv2d)), 3)


def tell(text: str) -> None:
    """A warning in the log."""
    print_log(text, 'current', logging.WARNING)
