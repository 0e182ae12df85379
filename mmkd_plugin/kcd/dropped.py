"""What dropped samples are ranked by: the values that they had, those values aged, or values of a pass over them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.optim import OptimWrapper
from torch.utils.data import DataLoader

from ..networks import evaluating
from ..randomness import keep_random_state, seed_everything
from .observer import Observer
from .valuation import ValueTable, fall, level


class Dropped:
    """Brings the values of dropped samples up to date before a round.

    - ``last``: they stay what they were when the sample was trained on (the official code).
    - ``aged``: they are multiplied by what became of the median of the kept samples since the round before.
    - ``pass``: the student is asked, in one forward pass over them. What it says stands for each epoch that they
      missed, so that their running mean is over as many epochs as that of the others.

    Args:
        how: One of these.
    """

    def __init__(self, how: str) -> None:
        self.how = how
        #: The median value of the kept samples at the last round.
        self.level: float | None = None

    def renew(self, runner: Any, observer: Observer, table: ValueTable, kept: np.ndarray, epochs: int) -> int:
        """Before a round is ranked.

        Args:
            runner: mmengine's.
            observer: That of the values.
            table: Whose values change.
            kept: (K,) the samples that were trained on since the round before.
            epochs: How many epochs that was.

        Returns:
            How many samples a forward pass was spent on, in all processes together.
        """
        dropped = np.setdiff1d(np.arange(len(table)), kept)
        if self.how == 'aged' and self.level is not None:
            table.age(dropped, fall(self.level, _level(table, kept)))
        if self.how != 'pass' or not len(dropped):
            return 0
        indices, values = gathered(pass_over(runner, observer, dropped))
        table.update(indices, values, times=epochs)
        return len(dropped)

    def note(self, table: ValueTable, kept: np.ndarray) -> None:
        """After a round has decided what is kept."""
        if self.how == 'aged':
            self.level = _level(table, kept)


def _level(table: ValueTable, kept: np.ndarray) -> float:
    return level(table.mean[kept[table.count[kept] > 0]])


def gathered(own: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Indices and values of all processes; an entry that several saw, as padding, counts once."""
    parts = all_gather_object(own)
    indices, values = (np.concatenate([part[i] for part in parts]) for i in range(2))
    indices, first = np.unique(indices, return_index=True)
    return indices, values[first]


def pass_over(runner: Any, observer: Observer, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of samples as the student is now, in evaluation mode; each process looks at its share.

    Images are whole (nothing is mixed in) and augmented as for training. What this draws follows from the seed, the
    number of iterations and the rank, and the run draws on as if nothing had been.

    Args:
        runner: mmengine's, whose training data has the samples.
        observer: That of the values, between two epochs.
        points: Their indices.

    Returns:
        Indices and values of this process's share.
    """
    rank, processes = get_dist_info()
    loader = runner.train_loop.dataloader
    with keep_random_state(), _apart(runner, observer.model):
        seed_everything((runner.seed or 0) * 1_000_003 + runner.iter * 1_009 + 7 + rank)
        for batch in _batches(loader, points[rank::processes]):
            observer.look(batch)
    return observer.take()


@contextmanager
def _apart(runner: Any, model: Any) -> Iterator[None]:
    """In evaluation mode, without gradient, in the precision that the run trains in."""
    wrapper = runner.optim_wrapper
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        if isinstance(wrapper, OptimWrapper):  # a dictionary of them has no precision of its own
            stack.enter_context(wrapper.optim_context(model))
        yield


def _batches(loader: Any, points: np.ndarray) -> DataLoader:
    """The training data, once, in batches as large as those of training; workers end with the pass."""
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)
    return DataLoader(
        loader.dataset, batch_size=size, sampler=points.tolist(), collate_fn=loader.collate_fn,
        num_workers=loader.num_workers, pin_memory=loader.pin_memory, worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context, timeout=loader.timeout,
    )  # fmt: skip
