"""Random states: kept as they were, or set anew."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Leave python's, numpy's and torch's random states as they were before the block.

    What a teacher or an evaluation draws must not change what the student's training draws.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (what transforms draw from)
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


class Replay:
    """Random numbers that follow from (seed, view, index): one view is one draw of a whole augmentation pipeline.

    The view is in shared memory, so that data workers which persist see it change.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._view = torch.zeros(1, dtype=torch.int64)
        self._view.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def view(self) -> int:
        """As which samples are drawn now."""
        return int(self._view)

    def show(self, view: int) -> None:
        """The coming samples are drawn as this view, a number from 0."""
        self._view[0] = view

    @contextmanager
    def drawing(self, index: int) -> Iterator[None]:
        """Inside the block python, numpy and torch (on the CPU) draw for one sample; then go on as if nothing had been.

        Args:
            index: The sample's, from 0.
        """
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        words = np.random.SeedSequence([self.seed, self.view, index]).generate_state(3).tolist()
        random.seed(words[0])
        np.random.seed(words[1])  # noqa: NPY002
        torch.default_generator.manual_seed(words[2])
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            torch.set_rng_state(states[2])


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
