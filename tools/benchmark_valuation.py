#!/usr/bin/env python
# ruff: noqa: E402 (arguments are read before the imports that take seconds)
"""Measure what it costs to value training samples and to condense a training set, on one core.

Ranking and partition of as many random samples as ImageNet-1k has, 1,281,167, and with --big of 14 million, about as
many as ImageNet-21k has; the entropy of a batch of logits, and the update of the table with its values.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, default=256, help='samples in a batch (default: 256)')
    parser.add_argument('--rounds', type=int, default=5, help='measured runs of each (default: 5)')
    parser.add_argument('--big', action='store_true', help='rank 14 million samples too')
    return parser.parse_args()


if __name__ == '__main__':
    parse()  # answers --help and slips at once: the imports below take seconds

import numpy as np
import torch

from mmkd_plugin.kcd.valuation import ValueTable, condense, entropy, keep_counts, rank

IMAGENET = 1_281_167
BIG = 14_000_000
CLASSES = 1000


def report(name: str, rounds: int, function: Callable[..., object], *args: Any) -> None:
    """Print median and range of some runs; one before them warms up."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
    middle, low, high = statistics.median(times[1:]), min(times[1:]), max(times[1:])
    print(f'  {name:9} {middle:.5f} s ({low:.5f} to {high:.5f})')


def filled(size: int) -> ValueTable:
    """A table as after 40 epochs: each sample seen, some more often than others."""
    rng = np.random.default_rng(0)
    table = ValueTable(size)
    table.mean[:] = rng.random(size) * np.log(CLASSES)
    table.count[:] = rng.integers(1, 41, size)
    return table


def main() -> None:
    """Measure and print."""
    args = parse()
    torch.set_num_threads(1)

    print(f'median (min to max) of {args.rounds} runs, one core, numpy {np.__version__}, torch {torch.__version__}')
    for size in (IMAGENET, BIG)[: 1 + args.big]:
        table = filled(size)
        scores = table.scores(0.03)
        print(f'{size:,} samples, {(table.mean.nbytes + table.count.nbytes) / size:g} bytes each')
        report('scores', args.rounds, table.scores, 0.03)
        report('ranking', args.rounds, rank, scores)
        report('partition', args.rounds, condense, rank(scores), keep_counts(size, 6, 0.7)[0], size, 0.3)

    table = ValueTable(IMAGENET)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(args.batch, CLASSES, generator=generator)
    indices = torch.randperm(IMAGENET, generator=generator)[: args.batch]
    print(f'a batch of {args.batch} × {CLASSES} logits')
    report('entropy', args.rounds, entropy, logits)
    report('table', args.rounds, table.update, indices, entropy(logits))


if __name__ == '__main__':
    main()
