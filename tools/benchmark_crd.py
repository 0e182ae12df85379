#!/usr/bin/env python
# ruff: noqa: E402 (arguments are read before the imports that take seconds)
"""Measure a step of CRD against the form that gathers its negatives: time, peak memory, equality.

The gathering form, as in RepDistiller, takes (N, 1 + K, d) rows out of each bank and multiplies them with the
embeddings; autograd keeps them. Both are run forward and backward with the same indices, in turns, in one process; the
peak memory of each in a process of its own. What a step of ours needs besides is measured apart: drawing the indices,
and moving the banks' rows.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--samples', type=int, default=50_000)
    parser.add_argument('--negatives', type=int, default=16_384)
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--dim', type=int, default=128)
    parser.add_argument('--classes', type=int, default=100)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, help="default: torch's own number")
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    args = parser.parse_args()
    if min(args.samples, args.negatives, args.batch, args.dim, args.rounds) < 1 or args.classes < 2:
        parser.error('numbers of at least 1 expected, and two classes')
    if args.negatives > args.samples - -(-args.samples // args.classes):
        parser.error(f'--negatives {args.negatives} given, more than there are samples of other classes')
    return args


if __name__ == '__main__':
    parse()  # answers --help and slips at once: the imports below take seconds

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd_plugin.losses import crd_loss
from mmkd_plugin.losses.memory import Classes, draw_others, update_rows

TAU = 0.07


def gathering_crd_loss(
    student: Tensor, teacher: Tensor, student_bank: Tensor, teacher_bank: Tensor, indices: Tensor, normalizers: Tensor
) -> Tensor:
    """The same value, with every negative of every sample in memory."""
    noise = (indices.size(1) - 1) / len(student_bank)

    def side(embedding: Tensor, bank: Tensor, log_z: Tensor) -> Tensor:
        rows = bank.index_select(0, indices.flatten()).view(*indices.shape, -1)
        v = torch.bmm(rows, embedding[:, :, None]).squeeze(2).div(TAU).exp() / log_z.exp()
        positive, negatives = v[:, 0], v[:, 1:]
        kept = (positive / (positive + noise + 1e-7)).log().sum() + (noise / (negatives + noise + 1e-7)).log().sum()
        return -kept / len(embedding)

    return side(student, teacher_bank, normalizers[0]) + side(teacher, student_bank, normalizers[1])


FORMS: dict[str, Callable[..., Tensor]] = {'gathering': gathering_crd_loss, 'ours': crd_loss}


class Step:
    """What a step is given.

    Args:
        args: The command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        generator = torch.Generator().manual_seed(0)
        self.embeddings, self.banks = (
            [F.normalize(torch.randn(rows, args.dim, generator=generator)) for _ in range(2)]
            for rows in (args.batch, args.samples)
        )
        self.embeddings, self.banks = ([t.to(args.device) for t in made] for made in (self.embeddings, self.banks))
        known = Classes(torch.arange(args.samples) % args.classes)
        of, order, starts, sizes = (t.to(args.device) for t in (known.of, known.order, known.starts, known.sizes))
        self.classes = of, order, starts, sizes, known.largest
        self.index = torch.randperm(args.samples, generator=generator)[: args.batch].to(args.device)
        self.negatives = args.negatives
        self.indices = torch.cat([self.index[:, None], self.draw()], 1)
        self.normalizers = torch.full((2,), float(torch.tensor(args.samples * 1.1).log()), device=args.device)
        for embedding in self.embeddings:
            embedding.requires_grad_()

    def draw(self) -> Tensor:
        """The negatives."""
        return draw_others(self.index, *self.classes, self.negatives)

    def update(self) -> None:
        """Both banks."""
        for bank, embedding in zip(self.banks, self.embeddings, strict=True):
            update_rows(bank, self.index, embedding.detach(), 0.5)

    def run(self, form: str) -> tuple[Tensor, list[Tensor]]:
        """Value and gradients."""
        for embedding in self.embeddings:
            embedding.grad = None
        value = FORMS[form](*self.embeddings, *self.banks, self.indices, self.normalizers)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach(), [embedding.grad for embedding in self.embeddings if embedding.grad is not None]


def timed(function: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Milliseconds, the device's work included, and what it returned."""
    wait: Callable[[], None] = torch.cuda.synchronize if device == 'cuda' else lambda: None
    wait()
    start = time.perf_counter()
    result = function()
    wait()
    return 1e3 * (time.perf_counter() - start), result


def resident(key: str) -> float:
    """MiB: `VmHWM` is the most so far, `VmRSS` now."""
    return int(Path('/proc/self/status').read_text().split(f'{key}:')[1].split()[0]) / 2**10


def peak_memory(form: str, args: argparse.Namespace, result: Any) -> None:
    """MiB that one pass takes above what it is given."""
    torch.set_num_threads(args.threads)
    step = Step(args)
    if args.device == 'cuda':
        step.run(form)  # cuBLAS takes its workspace
        for embedding in step.embeddings:
            embedding.grad = None
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        step.run(form)
        result.put((torch.cuda.max_memory_allocated() - allocated) / 2**20)
        return
    before = resident('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins here
    step.run(form)
    result.put(resident('VmHWM') - before)


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f'{statistics.median(values):9.1f} ms ({min(values):.1f} to {max(values):.1f})'


def main() -> None:
    """Measure and print."""
    args = parse()
    args.threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(args.threads)
    times: dict[str, list[float]] = {name: [] for name in (*FORMS, 'drawing', 'updating')}
    found = {}
    for round_ in range(args.rounds + 1):
        step = Step(args)  # updating changes the banks
        for form in FORMS:
            spent, found[form] = timed(partial(step.run, form), args.device)
            times[form].append(spent)
        for name, function in (('drawing', step.draw), ('updating', step.update)):
            times[name].append(timed(function, args.device)[0])
        if not round_:  # the first warms up
            times = {name: [] for name in times}
    torch.testing.assert_close(found['ours'], found['gathering'], rtol=1e-4, atol=1e-6)

    context = multiprocessing.get_context('spawn')
    peaks = {}
    for form in FORMS:
        queue = context.Queue()
        process = context.Process(target=peak_memory, args=(form, args, queue))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f'the process that measures the memory of {form!r} ended with {process.exitcode}')
        peaks[form] = queue.get()

    where = torch.cuda.get_device_name() if args.device == 'cuda' else f'CPU, {args.threads} threads'
    print(f'CRD, n = {args.samples}, K = {args.negatives}, batch {args.batch}, d = {args.dim}, forward and backward, '
          f'{where}, torch {torch.__version__}, {args.rounds} rounds in turns: median (least to most)')  # fmt: skip
    for form in FORMS:
        print(f'{form:10} {spread(times[form])}, peak memory {peaks[form]:8.1f} MiB')
    for name in ('drawing', 'updating'):
        print(f'{name:10} {spread(times[name])}')
    ratios = [a / b for a, b in zip(times['gathering'], times['ours'], strict=True)]
    print(f'ours is {statistics.median(ratios):.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f}) and takes '
          f'{peaks["ours"] / max(peaks["gathering"], 0.1):.3f} of the memory')  # fmt: skip


if __name__ == '__main__':
    main()
