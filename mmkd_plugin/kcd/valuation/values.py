"""What a sample is worth to a student, read off the student's logits."""

from collections.abc import Callable

import torch
from torch import Tensor

ValueFunction = Callable[[Tensor], Tensor]

#: By name: logits (N, C) to values (N,). The higher, the more there is to learn from the sample.
VALUES: dict[str, ValueFunction] = {}

#: The name of no value function: ranking by chance, see :func:`.random_scores`.
RANDOM = 'random'


def register_value(name: str) -> Callable[[ValueFunction], ValueFunction]:
    """Decorator that puts a value function into :data:`VALUES`.

    The function maps logits (N, C) to finite values (N,), high for what is worth distilling. Let them be >= 0:
    :meth:`.ValueTable.scores` multiplies them, which for negative ones would turn its purpose round.

    Args:
        name: How configs will call it.

    Raises:
        ValueError: If the name is taken.

    Example:
        >>> @register_value('doubt')
        ... def doubt(logits):
        ...     return 1 - logits.softmax(1).amax(1)
        >>> VALUES.pop('doubt') is doubt
        True
    """

    def register(function: ValueFunction) -> ValueFunction:
        if name == RANDOM or VALUES.setdefault(name, function) is not function:
            taken = sorted([*VALUES, RANDOM])
            raise ValueError(f'the value {name!r} is given twice, expected a new name. Taken are {taken}')
        return function

    return register


@register_value('entropy')
def entropy(logits: Tensor) -> Tensor:
    r"""How undecided the student is: the entropy of its prediction at temperature 1.

    C. Li et al., "Knowledge Condensation Distillation", ECCV 2022, arXiv 2207.05409, Eq 7:
    ``-sum_c p_c log p_c``, where a class of probability 0 adds 0. The official code multiplies probabilities by
    their logarithms, which is NaN where one underflows; here the logarithm is ``log_softmax``.

    Args:
        logits: (N, C), any precision; no gradient flows back.

    Returns:
        (N,) float32 in nats, from 0 to ln C; NaN where a logit is NaN or +inf.

    Raises:
        ValueError: If the logits are not (N, C).

    Example:
        >>> round(entropy(torch.zeros(1, 100)).item(), 5)
        4.60517
    """
    if logits.ndim != 2:
        raise ValueError(
            f'logits {tuple(logits.shape)} given, expected (N, C): a row of class scores for each sample. '
            'Tap the classifier layer (such as head.fc)'
        )
    logits = logits.detach()
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
    p = log_p.exp()
    # p > 0 is false for NaN too, and NaN is then what is added
    return -torch.where(p > 0, p * log_p, p).sum(1).float()
