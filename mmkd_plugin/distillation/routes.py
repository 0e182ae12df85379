"""Who is read where: the taps that losses want of each learner and each source."""

from collections.abc import Iterable, Mapping

from ..networks import BoxBranch, Tap
from ..teachers import Source
from .term import Term


class Routes:
    """From terms to taps.

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
