"""Searching for the next anchor of a route, which needs the student, its data and all processes."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import broadcast
from torch import Tensor

from ..facts import Batch
from ..losses import kd_loss
from ..networks import Tap, Taps, evaluating, network_of
from ..randomness import keep_random_state, seed_everything
from ..teachers import Route, Stages
from .teacher_check import draw_samples


def stages_of(distillation: Any) -> Iterator[Stages]:
    """Of each route that has several anchors."""
    for source in distillation.sources.values():
        if isinstance(source, Route) and source.changes:
            yield source.stages


def check_routes(runner: Any, distillation: Any) -> None:
    """See, before training, that the stages of routes fit into the run.

    Raises:
        ValueError: If the run is too short for them.
        RuntimeError: If nobody compares what a search looks at.
    """
    for stages in stages_of(distillation):
        stages.begins(runner.max_epochs if stages.by_epoch else runner.max_iters)
    list(searched_routes(distillation))


def searched_routes(distillation: Any) -> Iterator[tuple[Route, Tap, Tap]]:
    """The routes that search, each with where the student's logits and its own are compared.

    Raises:
        RuntimeError: If nobody compares such logits.
    """
    for name, route in distillation.teachers.items():
        if not isinstance(route, Route) or route.stages.greedy is None or not route.changes:
            continue
        found = [
            (term.taps('student')[0], term.taps(name)[0])
            for term in distillation.terms
            if term.compares_logits and term.learner == 'student' and name in term.on and not term.through
            if not term.branches and 'student' in term.on
        ]
        if not found:
            raise RuntimeError(
                f'{route.stages.who}: a search compares predictions, and no loss compares logits of whole images of '
                'the student with its: add one, such as KDLoss, or give switch=[...]'
            )
        route.is_searched = True
        yield route, *found[0]


def search(runner: Any, model: Any) -> None:
    """Before an epoch, let every route that begins a stage with it choose its anchor; in all processes the same.

    Args:
        runner: Of a run by epochs.
        model: The distilled student.
    """
    epoch = runner.epoch
    for route, at_student, at_teacher in searched_routes(model.distill):
        greedy, chosen = route.stages.greedy, route.stages.chosen()
        current = max((number for begun, number in chosen if begun < epoch), default=0)
        if not epoch or epoch % greedy.every or current == len(route.anchors) - 1:  # type: ignore[union-attr]
            continue
        gaps = _gaps(runner, model, route, current, at_student, at_teacher)
        number = greedy.choose(current, gaps)  # type: ignore[union-attr]
        told = ', '.join(f'{name} {gap:.3g}' for name, gap in zip(route.anchors[current:], gaps, strict=True))
        runner.logger.info(f'{route.name}: KL divergence of the student from its anchors, in nats: {told}')
        route.stages.keep(epoch, number)


@torch.no_grad()
def _gaps(runner: Any, model: Any, route: Route, current: int, at_student: Tap, at_teacher: Tap) -> list[float]:
    """KL divergence from the student to the current anchor and to each later one, in nats, on training images."""
    loader, distillation = runner.train_dataloader, model.distill
    size = min(route.stages.greedy.samples, len(loader.dataset))  # type: ignore[union-attr]
    batches: list[tuple[Batch, Tensor]] = []
    with keep_random_state():
        seed_everything((runner.seed or 0) * 1_000_003 + runner.epoch)
        with evaluating(model):
            for data in draw_samples(loader, size, loader.batch_size or size):
                made = model.data_preprocessor(data, training=False)
                batch = Batch(made['inputs'], sizes=distillation.sizes.of(made['inputs'], made.get('data_samples')))
                taps = Taps(model, [at_student], 'student', {at_student})
                with taps.recording():
                    network_of(model).run(batch.images, {at_student.path}, {})
                batches.append((batch, taps.values()[at_student]))
    gaps = []
    for _ in route.each(current):
        sums = [kd_loss(z, route.read(b, {at_teacher: None})[at_teacher], 1.0) * len(z) for b, z in batches]
        gaps.append(torch.stack(sums).sum() / sum(len(z) for _, z in batches))
    values = torch.stack(gaps).double()
    broadcast(values)  # processes have running statistics of their own
    return [float(value) for value in values]
