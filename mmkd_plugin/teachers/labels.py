"""A teacher that is made of the labels."""

import math
from typing import ClassVar

from torch import Tensor

from ..facts import Batch
from ..networks import Tap
from ..options import check_number
from .source import SOURCES, Source, Wanted


@SOURCES.register_module()
class Labels(Source):
    """The virtual teacher of Tf-KD: always right, and equally undecided between all other classes.

    L. Yuan, F. Tay, G. Li, T. Wang, J. Feng, "Revisiting Knowledge Distillation via Label Smoothing Regularization",
    CVPR 2020, arXiv 1909.11723: the probability ``correct`` for the class that an image (or RoI) is of, and
    ``(1 - correct) / (C - 1)`` for each other. Its logits are the logarithms of these, so that a temperature T softens
    them to probabilities in proportion to ``p ** (1 / T)``. Deviation: the authors' code divides the probabilities
    themselves by T and takes the softmax, which makes them almost uniform.

    ``teachers=dict(virtual=dict(type='Labels'))``, and in a loss ``on='head.fc'``: the tap names the student's logits,
    whose shape (N, C) the answer has.

    Args:
        name: Its key in ``teachers``.
        correct: In (0, 1); at least 0.9 in the paper, 0.99 in the authors' code.

    Raises:
        ValueError: If ``correct`` is no number in (0, 1).
    """

    keys: ClassVar[tuple[str, ...]] = ('correct',)
    needs = ('labels',)

    def __init__(self, name: str, correct: float = 0.99) -> None:
        super().__init__(name)
        self.correct = check_number(correct, f'{name}: correct', 0, 1, above=True)
        if self.correct == 1:
            raise ValueError(f'{name}: correct=1 given, expected less, so that the others have a probability as well')

    def read(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """Logits (N, C) for the classes of the images, or of the RoIs that are a tap's rows.

        Raises:
            ValueError: If a tap reads no logits, or the batch has no classes.
        """
        return {tap: self._logits(tap, batch.values['student'][tap], batch.get('labels', taps[tap])) for tap in taps}

    def _logits(self, tap: Tap, like: Tensor, labels: Tensor) -> Tensor:
        if like.ndim != 2 or like.size(1) < 2 or len(like) != len(labels):
            raise ValueError(
                f"'{self.name}' (Labels) answers for the student's logits, and '{tap}' reads {tuple(like.shape)} for "
                f'{len(labels)} labels, expected (N, C) with a row for each: tap the classifier, such as head.fc'
            )
        logits = like.new_full(like.shape, math.log((1 - self.correct) / (like.size(1) - 1)))
        return logits.scatter_(1, labels[:, None], math.log(self.correct))
