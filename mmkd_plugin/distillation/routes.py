"""Who is read where, and what is compared with what."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..facts import Batch
from ..networks import BoxBranch, Tap
from ..teachers import Source
from .term import Term

#: By source, what it says of a batch.
Taught = Mapping[str, Mapping[Tap, Tensor]]


class Routes:
    """From terms to taps, and from their values to what a term compares.

    Args:
        sources: By name.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def asked(self, learner: str, terms: Iterable[Term]) -> list[Tap]:
        """What is tapped in a learner's own pass: for the terms, and for sources that answer from the student's."""
        terms = list(terms)
        taps = [tap for term in terms for tap in term.taps(learner)]
        if learner == 'student':
            for name, source in self._sources.items():
                taps += source.asks_student(self.wanted(name, terms))
        return list(dict.fromkeys(taps))

    def wanted(self, source: str, terms: Iterable[Term]) -> dict[Tap, BoxBranch | None]:
        """What is read of a source, each tap with the student's box branch whose RoIs are its rows.

        Raises:
            ValueError: If a tap would have two kinds of rows.
        """
        wanted: dict[Tap, BoxBranch | None] = {}
        for term in terms:
            if source not in term.sources:
                continue
            for tap, rows in zip(term.taps(source), term.rows[source], strict=True):
                if wanted.setdefault(tap, rows) != rows:
                    raise ValueError(
                        f"'{tap}' of {source} is compared with several stages of the student, which sample different "
                        'RoIs; choose one of them'
                    )
        return wanted

    def compared(self, term: Term, batch: Batch, taught: Taught) -> dict[str, Mapping[Tap, Tensor]]:
        """What a term compares, by side: the learner's values, or what a source makes of them, and constants.

        Args:
            term: The term.
            batch: With what the learners computed.
            taught: What the sources say.

        Raises:
            ValueError: If what is to go through a source does not fit there.
        """
        sides = {source: taught[source] for source in term.sources}
        if term.learner not in term.on:
            return sides
        own = batch.values[term.learner]
        if not term.through:
            return {term.learner: own, **sides}
        (source,) = term.sources
        wanted = dict(zip(term.taps(source), term.rows[source], strict=True))
        written = {to: own[tap] for to, tap in zip(term.through, term.taps(term.learner), strict=True)}
        try:
            return {term.learner: self._sources[source].read_through(batch, wanted, written), **sides}
        except ValueError as error:
            raise ValueError(f"{term.who}: what goes through '{source}' does not fit there: {error}") from error

    def tried(self, term: Term, batch: Batch, taught: Taught) -> dict[str, Mapping[Tap, Tensor]]:
        """As :meth:`compared`, in a dry run: what goes through a source must reach what is read of it.

        Raises:
            ValueError: If it does not.
        """
        if not term.through:
            return self.compared(term, batch, taught)
        taps = term.taps(term.learner)
        leaves = {tap: batch.values[term.learner][tap].detach().requires_grad_() for tap in taps}
        trial = Batch(batch.images, sizes=batch.sizes, regions=batch.regions, values={term.learner: leaves})
        with torch.enable_grad():
            compared = self.compared(term, trial, taught)
            total = torch.stack([value.float().sum() for value in compared[term.learner].values()]).sum()
            grads = torch.autograd.grad(total, [*leaves.values()], allow_unused=True) if total.requires_grad else ()
        if lost := [str(tap) for number, tap in enumerate(leaves) if number >= len(grads) or grads[number] is None]:
            raise ValueError(
                f"{term.who}: what {term.learner} has at {lost} does not reach what is read of '{term.sources[0]}': of "
                f'{[str(tap) for tap in term.through]} write only what lies before that'
            )
        return {side: {tap: value.detach() for tap, value in values.items()} for side, values in compared.items()}
