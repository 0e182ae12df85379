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
    ``(1 - correct) / (C - 1)`` for each other.

    The paper's form: logits are the logarithms of these, so that a loss with temperature T softens them to
    probabilities in proportion to ``p ** (1 / T)``, and the student likewise. For C = 100, ``correct=0.99`` and T = 20
    the class has 0.0157412.

    The authors' code is another form, which ``temperature`` gives: logits are the probabilities themselves, divided by
    it. What comes out is almost uniform (0.0105021 for the class, with the same numbers), and the student is not
    softened, so that it belongs to ``KDLoss(temperature=1)``. Weights of the authors' code (alpha, temperature and
    multiplier) are of this form: there KL is a mean over batch and classes, so that they say
    ``loss_weight=alpha * multiplier / C`` beside ``task_loss=dict(loss_weight=1 - alpha)``. For the paper's form we
    know of none.

    ``teachers=dict(virtual=dict(type='Labels'))``, and in a loss ``on='head.fc'``: the tap names the student's logits,
    whose shape (N, C) the answer has.

    Args:
        name: Its key in ``teachers``.
        correct: In (0, 1); at least 0.9 in the paper, 0.99 in the authors' code.
        temperature: Of the authors' form, > 0 (dimensionless); None is the paper's.

    Raises:
        ValueError: If ``correct`` is no number in (0, 1) or the temperature none > 0.
    """

    keys: ClassVar[tuple[str, ...]] = ('correct', 'temperature')
    needs = ('labels',)

    def __init__(self, name: str, correct: float = 0.99, temperature: float | None = None) -> None:
        super().__init__(name)
        self.correct = check_number(correct, f'{name}: correct', 0, 1, above=True)
        if self.correct == 1:
            raise ValueError(f'{name}: correct=1 given, expected less, so that the others have a probability as well')
        self.temperature = (
            None if temperature is None else check_number(temperature, f'{name}: temperature', above=True)
        )

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
        of_class, of_others = map(self._logit, (self.correct, (1 - self.correct) / (like.size(1) - 1)))
        return like.new_full(like.shape, of_others).scatter_(1, labels[:, None], of_class)

    def _logit(self, probability: float) -> float:
        return math.log(probability) if self.temperature is None else probability / self.temperature
