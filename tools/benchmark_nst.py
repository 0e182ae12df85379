#!/usr/bin/env python
# ruff: noqa: E402 (arguments are read before the imports that take seconds)
"""Measure NST's polynomial kernel against the broadcast form that other codes use: time, peak memory, equality.

The broadcast form, as in RepDistiller and mdistiller, multiplies (N, C_s, 1, HW) by (N, 1, C_t, HW) and sums. Both are
run forward and backward on the same maps, in turns, in one process; the peak memory of each in a process of its own.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shape', type=int, nargs=4, default=[64, 64, 32, 32], metavar=('N', 'C', 'H', 'W'))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, help="default: torch's own number")
    args = parser.parse_args()
    if args.rounds < 1 or min(args.shape) < 1:
        parser.error(f'--rounds {args.rounds} --shape {args.shape} given, expected numbers of at least 1')
    return args


if __name__ == '__main__':
    parse()  # answers --help and slips at once: the imports below take seconds

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd_plugin.losses import nst_loss


def broadcast_nst_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The same value, with every product of two channels in memory."""
    y, x = (F.normalize(maps.flatten(2), dim=2) for maps in (student, teacher))

    def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(2) * b.unsqueeze(1)).sum(3).square().mean((1, 2))

    return (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)).mean()


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {'broadcast': broadcast_nst_loss, 'ours': nst_loss}


def maps(shape: list[int]) -> tuple[Tensor, Tensor]:
    """Student and teacher maps after a ReLU."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(*shape, generator=generator).relu() for _ in range(2))
    return student.requires_grad_(), teacher


def step(form: str, student: Tensor, teacher: Tensor) -> tuple[float, Tensor, Tensor]:
    """Seconds, value and gradient of one forward and backward pass."""
    student.grad = None
    start = time.perf_counter()
    value = FORMS[form](student, teacher)
    value.backward()  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - start
    assert student.grad is not None
    return seconds, value.detach(), student.grad


def resident(key: str) -> float:
    """MiB: `VmHWM` is the most so far, `VmRSS` now."""
    return int(Path('/proc/self/status').read_text().split(f'{key}:')[1].split()[0]) / 2**10


def peak_memory(form: str, shape: list[int], threads: int, result: Any) -> None:
    """MiB that one pass takes above the maps themselves."""
    torch.set_num_threads(threads)
    student, teacher = maps(shape)
    step(form, student[:1].detach().requires_grad_(), teacher[:1])  # libraries are loaded
    before = resident('VmRSS')
    step(form, student, teacher)
    result.put(resident('VmHWM') - before)


def main() -> None:
    """Measure and print."""
    args = parse()
    args.threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(args.threads)

    student, teacher = maps(args.shape)
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    values, gradients = {}, {}
    for round_ in range(args.rounds + 1):
        for form in FORMS:
            seconds, values[form], gradients[form] = step(form, student, teacher)
            if round_:  # the first warms up
                times[form].append(seconds)
    torch.testing.assert_close(values['ours'], values['broadcast'], rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(gradients['ours'], gradients['broadcast'], rtol=1e-3, atol=1e-9)

    context = multiprocessing.get_context('spawn')
    memory = {}
    for form in FORMS:
        queue = context.Queue()
        process = context.Process(target=peak_memory, args=(form, args.shape, args.threads, queue))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f'the process that measures the memory of {form!r} ended with {process.exitcode}')
        memory[form] = queue.get()

    print(f'NST, polynomial kernel, maps {tuple(args.shape)}, forward and backward, CPU, {args.threads} threads, '
          f'torch {torch.__version__}, {args.rounds} rounds in turns; median (min to max)')  # fmt: skip
    for form, measured in times.items():
        low, middle, high = (1e3 * value for value in (min(measured), statistics.median(measured), max(measured)))
        print(f'{form:10} {middle:9.1f} ms ({low:.1f} to {high:.1f}), peak memory {memory[form]:8.1f} MiB')
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(f'ours is {statistics.median(ratios):.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f}) and takes '
          f'{memory["ours"] / max(memory["broadcast"], 0.1):.3f} of the memory')  # fmt: skip


if __name__ == '__main__':
    main()
