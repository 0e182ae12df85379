"""Memories of embeddings over the training samples: room for them, drawing from them, and keeping them up."""

import hashlib
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

MIB = 2**20


class Classes:
    """Which samples there are of which class, as tensors that a loss keeps as buffers.

    Args:
        labels: (n,) int64, the class of each sample; any integers.
    """

    def __init__(self, labels: Tensor) -> None:
        _, self.of, self.sizes = labels.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
        #: The samples class by class, and where each class begins in that.
        self.order = self.of.argsort(stable=True)
        self.starts = self.sizes.cumsum(0) - self.sizes
        #: The size of the largest class.
        self.largest = int(self.sizes.max()) if len(labels) else 0
        #: Of the labels in their order; never 0.
        self.digest = int.from_bytes(hashlib.blake2b(labels.numpy().tobytes(), digest_size=7).digest(), 'big') | 1


def draw_others(
    index: Tensor, of: Tensor, order: Tensor, starts: Tensor, sizes: Tensor, largest: int, count: int,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Samples of other classes for each sample, drawn without replacement.

    All samples are shuffled once and laid in a circle; a sample walks it from a place of its own (which is as random as
    any other, since the circle is) and takes the first ``count`` of other classes. So each sample's set is drawn
    uniformly from all such sets, as by a draw for each sample alone; those of several samples come from one shuffle.
    Costs n + N * (count + largest), where a shuffle for each sample would cost N * n. What a sample draws does not
    depend on the others in the batch.

    Args:
        index: (N,) int64, the samples.
        of: (n,) the class of each sample, 0 to C - 1.
        order: (n,) the samples class by class.
        starts: (C,) where each class begins in ``order``.
        sizes: (C,) of each class.
        largest: The largest of ``sizes``.
        count: How many; at most n - largest.
        generator: Of the random numbers, on the device of ``index``; None for the device's own.

    Returns:
        (N, count) int64.
    """
    device, samples = index.device, len(of)
    circle = torch.randperm(samples, generator=generator, device=device)
    place = torch.empty_like(circle).scatter_(0, circle, torch.arange(samples, device=device))
    walk = torch.cat([circle, circle[: count + largest]]).unfold(0, count + largest, 1)[index]
    label = of[index][:, None]
    # the few of the own class are looked up rather than looked for, and exchanged for the others that come next
    member = torch.arange(largest, device=device)
    own = order[(starts[label] + member).clamp_max(samples - 1)]
    met = (place[own] - index[:, None]) % samples
    is_met = (member < sizes[label]) & (met < count)
    following = walk[:, count:]
    following = following.gather(1, (of[following] == label).to(torch.uint8).argsort(dim=1, stable=True))
    instead = following.gather(1, (is_met.cumsum(1) - 1).clamp_min(0))
    return walk.scatter_(1, met.where(is_met, count), instead)[:, :count]  # column `count` takes what is not met


def draw_same(
    index: Tensor, of: Tensor, order: Tensor, starts: Tensor, sizes: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """One sample of the same class for each sample, all equally likely, itself among them.

    Args:
        index: (N,) int64, the samples.
        of: As in :func:`draw_others`, like the others.
        order: Samples class by class.
        starts: Where each class begins.
        sizes: Of each class.
        generator: Of the random numbers.

    Returns:
        (N,) int64.
    """
    chance = torch.rand(len(of), generator=generator, device=index.device, dtype=torch.float64)[index]
    label = of[index]
    return order[starts[label] + (chance * sizes[label]).long()]


def fill_at_random(*banks: Tensor) -> None:
    """Fill banks (n, d) with uniform numbers in +-sqrt(3 / d), rows of length 1 on average, equal on all processes."""
    seed = torch.randint(2**62, (1,)).to(banks[0].device)
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(seed, 0)
    generator = torch.Generator(banks[0].device).manual_seed(int(seed))
    for bank in banks:
        bound = (3 / bank.size(1)) ** 0.5
        bank.uniform_(-bound, bound, generator=generator)


def update_rows(bank: Tensor, index: Tensor, embedding: Tensor, momentum: float) -> None:
    """Move rows of a bank towards embeddings, in place: ``normalise(momentum * row + (1 - momentum) * embedding)``.

    Where a sample is in the batch more than once, its last row counts.

    Args:
        bank: (n, d).
        index: (N,) int64, the rows.
        embedding: (N, d), of length 1.
        momentum: In [0, 1].
    """
    found, rows = index.sort(stable=True)
    last = rows[torch.searchsorted(found, index, right=True) - 1]
    moved = momentum * bank[index] + (1 - momentum) * embedding[last].to(bank.dtype)
    bank[index] = F.normalize(moved)  # rows of one sample are equal, whichever is written last


def take_in(queue: Tensor, seen: Tensor, rows: Tensor) -> None:
    """Put rows into a queue in place of those that were put there first.

    Args:
        queue: (slots, ...).
        seen: () int64, how many rows were put in before.
        rows: (N, ...); of more than there are slots the last ones stay.
    """
    slots = (seen + torch.arange(len(rows), device=rows.device)) % len(queue)
    queue[slots[-len(queue) :]] = rows[-len(queue) :].to(queue.dtype)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had on a device; None where nobody knows."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    told = Path('/proc/meminfo')
    if device.type != 'cpu' or not told.exists():
        return None
    return int(told.read_text().split('MemAvailable:')[1].split()[0]) * 1024


def check_room(bank: Tensor, rows: int, who: str) -> None:
    """See that two banks fit into memory before they are made.

    Args:
        bank: (any, d), on its device and of its dtype.
        rows: How many there will be.
        who: What the error calls the loss.

    Raises:
        ValueError: If they do not; it says which ``queue`` would.
    """
    free, row = free_memory(bank.device), 2 * bank.size(1) * bank.element_size()
    if free is None or rows * row <= free:
        return
    fits = 2 ** ((free // 2 // row).bit_length() - 1) if free // 2 >= row else 1
    raise ValueError(
        f'{who} keeps two embeddings of {bank.size(1)} numbers of each of {rows} samples, {rows * row / MIB:,.0f} MiB, '
        f'and {bank.device} has {free / MIB:,.0f} MiB left: queue={fits} would fit, which keeps those of the last '
        f'{fits} samples only; or lower embedding_dim'
    )
