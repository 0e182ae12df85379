"""A pass of everybody on images that nobody labelled, from which shapes are learned when a model is built."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..facts import Batch
from ..networks import Network, SizeError, Tap, dry_run
from ..teachers import Source
from .routes import Routes
from .term import Term


class Example(NamedTuple):
    """What such a pass gave.

    Attributes:
        batch: The images, and the student's values.
        taught: By source, what it would teach.
        clone: Taps of the student that a later module works upon in place.
    """

    batch: Batch
    taught: dict[str, dict[Tap, Tensor]]
    clone: set[Tap]


def example_pass(
    student: Network,
    sources: Mapping[str, Source],
    terms: Sequence[Term],
    routes: Routes,
    shapes: Sequence[tuple[int, int, int]],
) -> Example:
    """A pass on the first size on which all run.

    Args:
        student: Its face.
        sources: By name.
        terms: All losses, which have found their rows.
        routes: Who is read where.
        shapes: (C, H, W) of images, in the order in which they are tried.

    Raises:
        ValueError: If there is none: what was wrong with the first. If something is read wrongly.
        TypeError: If a source does not answer.
    """
    failed: SizeError | None = None
    for shape in shapes:
        try:
            return _pass(student, sources, terms, routes, shape)
        except SizeError as error:
            failed = failed or error
    raise cast(SizeError, failed)


def _pass(
    student: Network,
    sources: Mapping[str, Source],
    terms: Sequence[Term],
    routes: Routes,
    shape: tuple[int, int, int],
) -> Example:
    images = torch.zeros(2, *shape)
    images = images.to(next(student.model.parameters(), images))  # its device and dtype
    branches = sorted({branch for term in terms for branch in term.branches})
    recorded, clone = dry_run(student, images, routes.asked('student', terms), branches)
    batch = Batch.example(images, branches)
    batch.values['student'] = recorded.values()
    taught: dict[str, dict[Tap, Tensor]] = {}
    for name, source in sources.items():
        wanted = routes.wanted(name, terms)
        for term in terms:
            if term.learner == name:
                wanted |= dict.fromkeys(term.taps(name))
            if term.through and name == term.sources[0]:  # folding must leave them alone
                wanted |= dict.fromkeys(term.through, term.rows[name][0])
        taught[name] = source.probe(batch, wanted)
        if not isinstance(taught[name], Mapping) or not taught[name].keys() >= wanted.keys():
            raise TypeError(
                f"'{name}' ({type(source).__name__}) was asked for {list(map(str, wanted))} and gave "
                f'{taught[name]!r:.200}, expected a dictionary with a tensor for each tap'
            )
    return Example(batch, taught, clone)
