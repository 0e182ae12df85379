"""What a sample is worth to a student, read off the student's logits."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .table import ForgettingTable, ValueTable

#: Logits (N, C), and what it names behind them, to values (N,).
ValueFunction = Callable[..., Tensor]

#: By name. The higher a value, the more there is to learn from the sample.
VALUES: dict[str, ValueFunction] = {}

#: By name, the table that remembers values, where that is not the running mean of :class:`.ValueTable`.
TABLES: dict[str, type[ValueTable]] = {}

#: The name of no value function: ranking by chance, see :func:`.random_scores`.
RANDOM = 'random'

#: What a value function may name behind the logits: the class of each row, (N,) int64, and the teacher's logits (N, C).
NEEDS = ('labels', 'teacher')


def register_value(name: str, table: type[ValueTable] = ValueTable) -> Callable[[ValueFunction], ValueFunction]:
    """Decorator that puts a value function into :data:`VALUES`.

    The function maps logits (N, C) to finite values (N,), high for what is worth distilling. What else it reads it
    names as further arguments, some of :data:`NEEDS`. Let values be >= 0: :meth:`.ValueTable.scores` multiplies them,
    which for negative ones would turn its purpose round.

    Args:
        name: How configs will call it.
        table: What remembers the values of each sample.

    Raises:
        ValueError: If the name is taken, or the function names something that nobody gives.

    Example:
        >>> @register_value('doubt')
        ... def doubt(logits):
        ...     return 1 - logits.softmax(1).amax(1)
        >>> VALUES.pop('doubt') is doubt
        True
    """

    def register(function: ValueFunction) -> ValueFunction:
        if unknown := [need for need in needs_of(function) if need not in NEEDS]:
            raise ValueError(
                f'the value {name!r} names {unknown[0]!r} behind the logits, expected some of {", ".join(NEEDS)}'
            )
        if name == RANDOM or VALUES.setdefault(name, function) is not function:
            taken = sorted([*VALUES, RANDOM])
            raise ValueError(f'the value {name!r} is given twice, expected a new name. Taken are {taken}')
        if table is not ValueTable:
            TABLES[name] = table
        return function

    return register


def needs_of(function: ValueFunction) -> Sequence[str]:
    """What a value function names behind the logits."""
    _, *further = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in further if parameter.default is parameter.empty]


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
    log_p = _log_softmax(logits)
    p = log_p.exp()
    # p > 0 is false for NaN too, and NaN is then what is added
    return -torch.where(p > 0, p * log_p, p).sum(1).float()


@register_value('loss')
def loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""How wrong the student is: the cross-entropy with the label, ``-log p_y``. High values, large losses, are kept.

    What small-loss selection (Han et al., "Co-teaching", NeurIPS 2018, arXiv 1804.06872) takes for clean is dropped
    first: where labels are wrong, this keeps them.

    Args:
        logits: (N, C), any precision; no gradient flows back.
        labels: (N,) int64, from 0 to C - 1.

    Returns:
        (N,) float32 in nats, >= 0; NaN where a logit is NaN or +inf.

    Raises:
        ValueError: If the logits are not (N, C), or there is not a label for each row.

    Example:
        >>> round(loss(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([1])).item(), 5)
        1.38629
    """
    log_p = _log_softmax(logits)
    _check_labels(logits, labels)
    return -log_p.gather(1, labels[:, None]).squeeze(1).float()


@register_value('kl')
def kl(logits: Tensor, teacher: Tensor) -> Tensor:
    r"""How far the student is from its teacher: ``KL(p_t || p_s) = sum_c p_t,c (log p_t,c - log p_s,c)``.

    At temperature 1, whatever that of the losses; a class that the teacher excludes adds 0. High values, large
    distances, are kept. Needs the teacher's class scores, which are read where a loss reads them.

    Args:
        logits: (N, C), any precision; no gradient flows back.
        teacher: (N, C), the teacher's.

    Returns:
        (N,) float32 in nats, >= 0; NaN where a logit is NaN or +inf.

    Raises:
        ValueError: If the logits are not (N, C), or the teacher's are of another shape.

    Example:
        >>> p = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        >>> [round(v, 5) for v in kl(torch.tensor([[0.75, 0.25]] * 2).log(), p.log()).tolist()]
        [0.14384, 0.28768]
    """
    log_p = _log_softmax(logits)
    if teacher.shape != logits.shape:
        raise ValueError(
            f"the teacher's logits {tuple(teacher.shape)} given for a student's {tuple(logits.shape)}, expected the "
            'same: the value compares class by class'
        )
    log_q = _log_softmax(teacher)
    q = log_q.exp()
    # q > 0 is false for NaN too, and NaN is then what is added; a rounded sum may fall below 0
    return torch.where(q > 0, q * (log_q - log_p), q).sum(1).clamp_min(0).float()


@register_value('margin')
def margin(logits: Tensor) -> Tensor:
    r"""How close the student's second choice is to its first: ``1 - (p_1 - p_2)``, probabilities in falling order.

    Scheffer, Decomain and Wrobel, "Active Hidden Markov Models for Information Extraction", 2001; in data selection:
    Coleman et al., "Selection via Proxy", ICLR 2020, arXiv 1906.11829. Needs no label. High values, small margins, are
    kept.

    Args:
        logits: (N, C) with C >= 2, any precision; no gradient flows back.

    Returns:
        (N,) float32, dimensionless, from 0 to 1; NaN where a logit is NaN or +inf.

    Raises:
        ValueError: If the logits are not (N, C), or C is 1.

    Example:
        >>> margin(torch.tensor([[0.5, 0.25, 0.25]]).log()).tolist()
        [0.75]
    """
    log_p = _log_softmax(logits)
    if logits.size(1) < 2:
        raise ValueError(f'logits {tuple(logits.shape)} given, expected two classes or more: one alone has no margin')
    first, second = log_p.exp().topk(2, dim=1).values.unbind(1)
    return (1 - (first - second)).float()


@register_value('forgetting', table=ForgettingTable)
def wrong(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Whether the student is wrong: 1 where ``argmax_c z_c`` is not the label, else 0.

    :class:`.ForgettingTable` makes the number of times that a sample was forgotten of it.

    Args:
        logits: (N, C), any precision.
        labels: (N,) int64, from 0 to C - 1.

    Returns:
        (N,) float32, 0 or 1; NaN where a logit is NaN or +inf.

    Raises:
        ValueError: If the logits are not (N, C), or there is not a label for each row.

    Example:
        >>> wrong(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1, 0])).tolist()
        [0.0, 1.0]
    """
    log_p = _log_softmax(logits)
    _check_labels(logits, labels)
    found = (log_p.argmax(1) != labels).float()
    return torch.where(log_p.isnan().any(1), torch.nan, found)


def _log_softmax(logits: Tensor) -> Tensor:
    """(N, C) float32 at least, without gradient."""
    if logits.ndim != 2:
        raise ValueError(
            f'logits {tuple(logits.shape)} given, expected (N, C): a row of class scores for each sample. '
            'Tap the classifier layer (such as head.fc)'
        )
    logits = logits.detach()
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)


def _check_labels(logits: Tensor, labels: Any) -> None:
    if labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f'labels {tuple(labels.shape)} of {labels.dtype} given for logits {tuple(logits.shape)}, expected one '
            'class for each row, (N,) int64'
        )
