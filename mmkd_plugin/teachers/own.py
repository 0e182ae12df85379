"""The student as its own teacher."""

from torch import Tensor

from ..facts import Batch
from ..networks import Tap
from .source import SOURCES, Source, Wanted


@SOURCES.register_module()
class Own(Source):
    """Values of the student's own training pass, as constants: its deeper layers teach the shallower ones.

    ``teachers=dict(own=dict(type='Own'))``, and in a loss ``on=dict(student='exit.fc', own='head.fc')``. Nothing is
    computed a second time.
    """

    def read(self, batch: Batch, taps: Wanted) -> dict[Tap, Tensor]:
        """What the student computed, detached."""
        return {tap: batch.values['student'][tap].detach() for tap in taps}
