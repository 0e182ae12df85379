"""Whose turn it is, where learners are updated one after the other from each batch."""

from collections.abc import Mapping
from typing import Any


class Turns:
    """Which learner learns in the coming step, and what the turns before gave to the log.

    Attributes:
        learner: Whose turn it is; None: all learn together.
    """

    def __init__(self) -> None:
        self.learner: str | None = None
        self._told: dict[str, Any] = {}
        self._named = False

    def begin(self) -> None:
        """A new batch."""
        self.learner, self._told, self._named = None, {}, False

    def join(self, losses: Mapping[str, Any], logged: dict[str, Any]) -> dict[str, Any]:
        """What the log gets of a step, with that of the turns before it, so that the last turn tells of all.

        Args:
            losses: What the step gave.
            logged: What mmengine made of it: ``loss`` is the total, or what the student itself calls so.

        Returns:
            ``loss`` as if all had learned together: what the student calls so, or the sum over the turns.
        """
        if self.learner is None:
            return logged
        logged = {key: value.detach() for key, value in logged.items()}
        joined = {**self._told, **logged}
        if 'loss' in self._told and 'loss' not in losses:
            joined['loss'] = self._told['loss'] if self._named else self._told['loss'] + logged['loss']
        self._told, self._named = joined, self._named or 'loss' in losses
        return joined
