#!/usr/bin/env python
# ruff: noqa: E402 (arguments are read before the imports that take seconds)
"""Measure every loss alone, forward and backward: time and memory, against the form that other codes use.

Both forms run on the same taps, in turns, in one process; what is quoted is the median of the rounds' ratios. Sizes and
common forms are those of `common_losses.py`. The losses at the sizes of the ResNet34→18 recipe are also given as a
share of its step, one with KD at 224 px, batch 32, which is measured beforehand as `benchmark_step.py` does, or given
by `--step-ms`; of those above 5 % it is said what takes the time. Memory is what the process holds at most above what
it held before (Linux; on a GPU what torch allocates); that of small losses scatters.
"""

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG = 'configs/classification/kd/kd_resnet34_resnet18_8xb64_in1k.py'
STEP_BATCH, SHARE = 32, 5.0  # images; % of a step above which a loss is named


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--losses', nargs='+', metavar='NAME', help="such as DKDLoss or 'RKDLoss: angles'; default: all"
    )
    parser.add_argument('--rounds', type=int, default=11, help='measured rounds of both forms (default 11)')
    parser.add_argument('--threads', type=int, help="CPU threads; default: torch's own number")
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--step-ms', type=float, metavar='MS', help='of a step of ResNet34→18, batch 32; 0: no shares')
    parser.add_argument('--no-memory', action='store_true', help='skip the memory measurement')
    parser.add_argument('--quick', action='store_true', help='a round at tiny sizes and no shares, to see that it runs')
    args = parser.parse_args()
    if args.rounds < 1 or (args.step_ms is not None and not 0 <= args.step_ms < math.inf):
        parser.error(f'--rounds {args.rounds} --step-ms {args.step_ms} given, expected at least 1 and 0')
    return args


if __name__ == '__main__':
    parse()  # answers --help and slips at once: the imports below take seconds

import torch
from benchmark_step import make_steps, seconds, spread
from common_losses import ENTRIES, NEEDS, Entry, Shape, Size
from torch import Tensor

from mmkd_plugin import losses

Form = Callable[[], Tensor]
ROUND = 0.02  # seconds that a round of a form lasts at least


def placed(value: Any, device: str) -> Any:
    """Tensors, and tuples of these, on a device; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(placed(item, device) for item in value)
    return value.to(device) if isinstance(value, Tensor) else value


class Trial:
    """A loss and its common form, on the same taps.

    Args:
        name: Of the entry.
        entry: The entry.
        size: One of its sizes.
        device: Where.
    """

    def __init__(self, name: str, entry: Entry, size: Size, device: str) -> None:
        generator = torch.Generator().manual_seed(0)

        def taps(shapes: tuple[Shape, ...]) -> list[Tensor]:
            """Maps and vectors as after a ReLU; logits, and what the entry says, of any sign."""
            made = [3 * torch.randn(shape, generator=generator) for shape in shapes]
            signed = entry.signed or getattr(loss, 'compares_logits', False)
            return [(tap if signed else tap.relu()).to(device) for tap in made]

        def given(side: str) -> Any:
            """What the loss gets of a side."""
            if side == 'teachers':
                return {f'teacher{number}': tap for number, tap in enumerate(teacher)}
            made = student if side == 'student' else teacher
            return made if getattr(loss, 'relates_layers', False) else made[0]

        found = getattr(losses, name.split(':')[0])
        loss = found(**entry.arguments, loss_weight=1.0) if isinstance(found, type) else found
        student, teacher = taps(size.student), taps(size.teacher or size.student)
        self.student = [tap.requires_grad_() for tap in student]
        sides = [given(side) for side in getattr(loss, 'sides', ('student', 'teacher'))]
        needs = {need: placed(NEEDS[need](size.student), device) for need in getattr(loss, 'needs', ())}
        self.parameters: list[Tensor] = []
        if isinstance(loss, losses.DistillLoss):
            torch.manual_seed(0)
            entry.connect(loss, *sides)
            self.parameters = list(loss.to(device).parameters())
        self.forms: dict[str, Form] = {'ours': lambda: loss(*sides, **needs)}
        if (common := entry.common) is not None and not (entry.broadcasts and size.too_large):
            self.forms['common'] = lambda: common(loss, *sides, **needs)

    def run(self, form: str) -> Tensor:
        """The value of one forward and backward pass."""
        for tensor in (*self.student, *self.parameters):
            tensor.grad = None
        value = self.forms[form]()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()


def times(trial: Trial, rounds: int, least: float, device: str) -> dict[str, list[float]]:
    """Seconds of one pass in each round, by form; what takes less than `least` is repeated within a round."""
    counts = {}
    for form in trial.forms:
        trial.run(form)  # warms up
        counts[form] = math.ceil(least / seconds(lambda form=form: trial.run(form), device)) or 1

    def passes(form: str) -> None:
        for _ in range(counts[form]):
            trial.run(form)

    measured: dict[str, list[float]] = {form: [] for form in trial.forms}
    for _ in range(rounds):
        for form, count in counts.items():
            measured[form].append(seconds(lambda form=form: passes(form), device) / count)
    return measured


def peak_memory(trial: Trial, form: str, device: str) -> float:
    """MiB that one pass takes above what there was, the gradients included; the median of three."""
    values = []
    for _ in range(3):
        for tensor in (*trial.student, *trial.parameters):
            tensor.grad = None
        if device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            trial.run(form)
            values.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        else:
            give_back_memory()
            before_mib = resident('VmRSS')
            trial.run(form)
            values.append(resident('VmHWM') - before_mib)
    return statistics.median(values)


def give_back_memory() -> None:
    """Unused heap to the system, and the mark of the most that was held down to what is held."""
    import ctypes

    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')


def resident(key: str) -> float:
    """MiB: `VmHWM` is the most so far, `VmRSS` now."""
    return int(Path('/proc/self/status').read_text().split(f'{key}:')[1].split()[0]) / 2**10


def check(trial: Trial, name: str, size: Size) -> None:
    """See that both forms have one value.

    Raises:
        SystemExit: If not, because then they are not comparable.
    """
    ours, common = (trial.run(form).item() for form in ('ours', 'common'))
    if not math.isclose(ours, common, rel_tol=1e-3, abs_tol=1e-10):
        raise SystemExit(f'{name}, {size}: {ours} by ours and {common} by the common form, expected the same value')


def missing() -> list[str]:
    """Exported losses without an entry."""
    exported = {name: getattr(losses, name) for name in losses.__all__}
    bases = {losses.DistillLoss, losses.SampleRelationLoss}
    classes = {n for n, item in exported.items() if isinstance(item, type) and issubclass(item, losses.DistillLoss)}
    return sorted(name for name in classes - {name.split(':')[0] for name in ENTRIES} if exported[name] not in bases)


def tiny(size: Size) -> Size:
    """The same kinds of taps, small."""

    def shrunk(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
        if size.related:
            return tuple((4, *shape[1:]) for shape in shapes)
        return tuple((4, max(4, shape[1] // 16), *(max(2, side // 4) for side in shape[2:])) for shape in shapes)

    return Size(shrunk(size.student), shrunk(size.teacher), size.in_step)


def chosen(names: list[str] | None) -> dict[str, Entry]:
    """The entries to measure.

    Raises:
        SystemExit: If a name is not known.
    """
    known = {name.split(':')[0] for name in ENTRIES}
    if unknown := [name for name in names or () if name not in known | ENTRIES.keys()]:
        raise SystemExit(f'--losses {" ".join(unknown)} given, expected some of {", ".join(sorted(known))}')
    return {
        name: entry for name, entry in ENTRIES.items() if not names or {name, name.split(':')[0]} & set(names)
    }  # fmt: skip


def step_ms(args: argparse.Namespace) -> float:
    """Of a distillation step of ResNet34→18, in milliseconds; 0 where no shares are wanted."""
    if args.step_ms is not None or args.quick:
        return args.step_ms or 0.0
    given = argparse.Namespace(
        config=CONFIG, image_size=[224], batch_size=STEP_BATCH, device=args.device, amp=False, precision=None,
        compile=False, stream=False,
    )  # fmt: skip
    step = make_steps(given, 'c')['c']
    step()
    return 1e3 * statistics.median(seconds(step, args.device) for _ in range(min(args.rounds, 5)))


def main() -> None:
    """Measure and print."""
    args = parse()
    args.threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(args.threads)
    entries = chosen(args.losses)
    step = step_ms(args)
    where = torch.cuda.get_device_name() if args.device == 'cuda' else f'CPU, {args.threads} threads'
    rounds = 1 if args.quick else args.rounds
    print(
        f'{where}, torch {torch.__version__}, {rounds} rounds in turns, forward and backward; median (min to max); '
        'peak memory in MiB'
    )
    print('| loss | taps | ms | ratio to the common form | memory | of the common form |')
    print(f'|{" --- |" * 6}')
    in_step: dict[str, float] = {}
    for name, entry in entries.items():
        for size in map(tiny, entry.sizes[:2]) if args.quick else entry.sizes:
            trial = Trial(name, entry, size, args.device)
            if entry.same and 'common' in trial.forms:
                check(trial, name, size)
            measured = times(trial, rounds, 0 if args.quick else ROUND, args.device)
            ratios = [a / b for a, b in zip(measured['ours'], measured.get('common', ()), strict=False)]
            memory = {} if args.no_memory else {form: peak_memory(trial, form, args.device) for form in trial.forms}
            cells = [f'{memory[form]:.1f}' if form in memory else '' for form in ('ours', 'common')]
            ratio = spread(ratios, 1, 3 if min(ratios) < 0.1 else 2) if ratios else ''
            print(
                f'| {name} | {size} | {spread(measured["ours"], 1e3, 2)} | {ratio} | {" | ".join(cells)} |', flush=True
            )
            if size.in_step:
                in_step[name] = in_step.get(name, 0.0) + 1e3 * statistics.median(measured['ours'])
    if step:
        print(
            f'\nOf a step of ResNet34→18 with KD (224 px, batch {STEP_BATCH}, {step:.0f} ms), all layers of a recipe:'
        )
        for name, ms in in_step.items():
            share = 100 * ms / step
            above = f'  more than {SHARE:g} %: {entries[name].takes or "why is not known"}'
            print(f'  {name:30} {share:6.2f} %{above if share > SHARE else ""}')
    if unmeasured := missing():
        print(f'without an entry in tools/common_losses.py: {", ".join(unmeasured)}')


if __name__ == '__main__':
    main()
