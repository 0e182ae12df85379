"""What each loss contributes to the gradient of who learns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .entries import tensors


@dataclass(frozen=True)
class Share:
    """Of one loss in one step, for one learner.

    Attributes:
        learner: ``student``, or a peer.
        name: As in the config; ``task`` for all of the learner's own losses together.
        value: As it is added to the total, weight and schedule included.
        norm: Of its gradient in the learner's parameters.
        share: That, divided by the sum of these norms over the task and all losses of the learner; in [0, 1].
        cosine: Of the angle between its gradient and the task's, in [-1, 1]; None where there is no task's.
    """

    learner: str
    name: str
    value: float
    norm: float
    share: float
    cosine: float | None


def gradient_shares(model: Any, losses: Mapping[str, Any], scale: float = 1.0) -> list[Share]:
    """Differentiate each loss by itself: a pass back through a learner for each of its losses, and one for its task.

    Args:
        model: A distilled model.
        losses: What its step gave, by name, with their graph, which stays.
        scale: A factor on all losses, as of a gradient scaler, so that float16 gradients do not vanish; it cancels.

    Returns:
        By learner, the task first. Nothing for learners that no loss reaches in this step.

    Raises:
        RuntimeError: As torch does through reentrant activation checkpoints.
    """
    shares: list[Share] = []
    for learner, parameters in _learners(model).items():
        entries = _entries(model, losses, learner)
        found: list[tuple[str, Tensor, Tensor]] = []
        task: list[Tensor | None] | None = None
        for name, values in entries.items():
            total = torch.stack([value.mean().float() for value in values]).sum()
            if not total.requires_grad:
                continue
            own = torch.autograd.grad(total * scale, parameters, retain_graph=True, allow_unused=True)
            gradients: list[Tensor | None] = [None if g is None else g.detach().float() / scale for g in own]
            task = gradients if name == 'task' else task
            numbers = torch.stack([_dot(gradients, gradients), _dot(gradients, task) if task else total.new_zeros(())])
            found.append((name, total.detach(), numbers))
        if found:
            shares += _shares(learner, found, task is not None)
    return shares


def _shares(learner: str, found: Sequence[tuple[str, Tensor, Tensor]], with_task: bool) -> list[Share]:
    rows = torch.stack([torch.stack([value, *numbers]) for _, value, numbers in found]).tolist()  # waits once
    norms = [square**0.5 for _, square, _ in rows]
    total = sum(norms) or 1.0
    task = norms[0] if with_task else 0.0
    return [
        Share(learner, name, value, norm, norm / total, dot / (norm * task) if with_task and norm * task else None)
        for (name, _, _), (value, _, dot), norm in zip(found, rows, norms, strict=True)
    ]


def _learners(model: Any) -> dict[str, list[nn.Parameter]]:
    named = model.named_parameters()
    student = [p for name, p in named if p.requires_grad and not name.startswith('distill.')]
    peers = {name: [p for p in peer.parameters() if p.requires_grad] for name, peer in model.distill.peers.items()}
    return {'student': student, **peers}


def _entries(model: Any, losses: Mapping[str, Any], learner: str) -> dict[str, list[Tensor]]:
    """Its own losses as ``task``, first; then those that teach it."""
    terms = {term.name: term for term in model.distill.terms}
    peers = tuple(f'{name}.' for name in model.distill.peers)
    own: list[Tensor] = []
    found: dict[str, list[Tensor]] = {}
    for name, value in losses.items():
        if name in terms:
            if terms[name].learner == learner or (learner == 'student' and not _apart(model, terms[name].learner)):
                found[name] = tensors(value)
        elif 'loss' in name:
            belongs = name.startswith(f'{learner}.') if learner != 'student' else not name.startswith(peers)
            own += tensors(value) if belongs else []
    return {'task': own, **found} if own else found


def _apart(model: Any, learner: str) -> bool:
    source = model.distill.sources.get(learner)
    return learner != 'student' and (source is None or source.apart)


def _dot(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> Tensor:
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    products = [(x * y).sum() for x, y in pairs]
    return torch.stack(products).sum() if products else torch.zeros((), device=_device(a, b))


def _device(*gradients: Sequence[Tensor | None]) -> torch.device:
    return next((g.device for own in gradients for g in own if g is not None), torch.device('cpu'))
