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


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
