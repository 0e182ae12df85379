#!/usr/bin/env python
"""Run every benchmark at sizes fit for this machine, and write one Markdown file with the machine and the figures.

Each part runs in a process of its own with a time limit; on a machine with a GPU the tests that need one run too. What
lacks a package is left out and named; what fails is named with the end of its error, and the rest goes on. The file is
written after every part, so that a run that is ended keeps what it has. Needs python and what the parts need, no
environment of its own.
"""

import argparse
import contextlib
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark_machine import ROOT, Machine, look, search_path
from benchmark_parts import Part, parts

_signals: list[int] = []  # those that ask for the end: what runs is ended first, and what there is written
LEAST = 10  # seconds without which no part is begun
NOISE = re.compile(r'Could not import OneDL|\s*$')  # of what packages print
FIGURES = re.compile(
    r'px, batch (?P<batch>\d+), AMP (?P<amp>\w+).*?^a  [a-z ]+(?P<a>.*) ms$.*?^b  [a-z ]+(?P<b>.*) ms$'
    r'.*?^c  [a-z ]+(?P<c>.*) ms$.*?^c / \(a \+ b\) +(?P<ratio>.*?)$',
    re.DOTALL | re.MULTILINE,
)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', metavar='NAME', help='parts whose names begin so; see --list')
    parser.add_argument('--budget', type=float, metavar='SECONDS', help='for all (default: 600, with a GPU 465)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmark.md'), help='default: %(default)s')
    parser.add_argument('--list', action='store_true', help='say what would run here, and what would be left out')
    args = parser.parse_args(argv)
    if args.budget is not None and not args.budget > 0:
        parser.error(f'--budget {args.budget} given, expected seconds above 0')
    return args


@dataclass
class Result:
    """What came of a part.

    Attributes:
        part: The part.
        state: 'done', 'failed', 'out of time' or 'left out'.
        text: What it printed, the end of its errors, or why it was left out.
        took: Seconds.
    """

    part: Part
    state: str
    text: str
    took: float = 0.0


def run(part: Part, limit: float) -> Result:
    """Run a part.

    Args:
        part: The part.
        limit: Seconds after which it, and what it started, is ended.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        config, out, err = (Path(folder, name) for name in (f'{part.name}.py', 'out', 'err'))
        config.write_text(part.config)
        command = [sys.executable, '-W', 'ignore', *(str(config) if a == '{config}' else a for a in part.command)]
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(search_path()), 'PYTHONUNBUFFERED': '1'}
        with out.open('w') as stdout, err.open('w') as stderr:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stdout, stderr=stderr,
                                       stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
            while process.poll() is None and time.monotonic() - begun < limit and not _signals:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
            code = process.returncode
            _end(process)
        printed, errors = (_lines(path, folder) for path in (out, err))
    took = time.monotonic() - begun
    if code is None:
        return Result(part, 'out of time', '\n'.join(printed[-60:]) or '(it had printed nothing)', took)
    if code:
        return Result(part, 'failed', '\n'.join([f'exit code {code}', *printed[-30:], *errors[-15:]]), took)
    return Result(part, 'done', '\n'.join(printed), took)


def _end(process: subprocess.Popen[bytes]) -> None:
    """A process, and those that it started and left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines(path: Path, folder: str) -> list[str]:
    """What a file holds, without noise and without the paths of this machine."""
    text = path.read_text(errors='replace').replace(f'{folder}/', '').replace(f'{ROOT}/', '').replace(str(ROOT), '.')
    text = text.replace(sys.prefix, 'PYTHON').replace(str(Path.home()), '~')
    return [line.rstrip() for line in text.splitlines() if not NOISE.match(line)]


def chosen(known: list[Part], only: Sequence[str] | None) -> list[Part]:
    """The parts to run.

    Raises:
        SystemExit: If a name begins none.
    """
    unknown = [name for name in only or () if not any(part.name.startswith(name) for part in known)]
    if unknown:
        raise SystemExit(f'--only {" ".join(unknown)} given, expected the beginnings of some of: '
                         f'{", ".join(part.name for part in known)}')  # fmt: skip
    return [part for part in known if not only or part.name.startswith(tuple(only))]


def lacking(part: Part, machine: Machine) -> str:
    """Why a part cannot run here; empty if it can."""
    return '; '.join(f'needs {need} ({machine.lacks[need]})' for need in part.needs if need in machine.lacks)


def report(machine: Machine, results: Sequence[Result], took: float, waiting: int = 0) -> str:
    """The Markdown file.

    Args:
        machine: Where.
        results: Of the parts so far.
        took: Seconds so far.
        waiting: How many parts are to come.
    """
    text = [f'# Benchmarks\n\n`python tools/benchmark.py`, {took:.0f} s. Times and ratios: median (least to most).']
    if waiting:
        text.append(f'Not finished: {waiting} parts are to come.')
    text.append(_table(('machine', ''), machine.facts.items()))
    if steps := [(result, found) for result in results if (found := FIGURES.search(result.text))]:
        text.append('## Steps\n\na: plain student, b: the plain teacher alone, c: the distilled student; ms a step.')
        head = 'step', 'batch', 'AMP', 'a', 'b', 'c', 'c / (a + b)'
        text.append(_table(head, [(r.part.title.removeprefix('A step of '), *f.groups()) for r, f in steps]))
    ran = [result for result in results if result.state != 'left out']
    for result in ran:
        note = {'failed': '**Failed**', 'out of time': '**Ended by its limit**'}.get(result.state, '')
        command = f'`python {shlex.join(_shown(result.part))}`, {result.took:.0f} s'
        text.append(f'## {result.part.title}\n\n{f"{note}: " if note else ""}{command}')
        text.append(_body(result.text))
    if out := [result for result in results if result.state == 'left out']:
        text.append('## Left out\n\n' + '\n'.join(f'- {r.part.title} (`{r.part.name}`): {r.text}' for r in out))
    return '\n\n'.join(text) + '\n'


def _shown(part: Part) -> list[str]:
    """Its command, with what stands in a config that was made for it."""
    return [part.name + '.py' if argument == '{config}' else argument for argument in part.command]


def _table(head: Sequence[str], rows: object) -> str:
    lines = [head, ['---'] * len(head), *rows]  # type: ignore[misc]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def _body(text: str) -> str:
    """Tables as they are, and all else as it was printed."""
    groups = itertools.groupby(text.splitlines(), key=lambda line: line.startswith('| '))
    return '\n\n'.join('\n'.join(lines) if table else '\n'.join(['```text', *lines, '```']) for table, lines in groups)


def write(path: Path, text: str) -> None:
    """Whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f'.{path.name}.{os.getpid()}')
    beside.write_text(text)
    os.replace(beside, path)


def main() -> None:
    """Look, run and write."""
    args = parse()
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda given, _: _signals.append(given))
    begun = time.monotonic()
    machine = look()
    budget = args.budget or (465 if machine.gpu else 600)
    selected = chosen(parts(machine.gpu), args.only)
    if args.list:
        for part in selected:
            print(f'{part.name:28} {lacking(part, machine) or f"at most {part.limit} s":40} {part.title}')
        return
    results: list[Result] = []
    for number, part in enumerate(selected, 1):
        if _signals:
            raise SystemExit(128 + _signals[0])
        left = budget - (time.monotonic() - begun)
        if why := lacking(part, machine) or ('' if left >= LEAST else f'the {budget:.0f} s of --budget were spent'):
            results.append(Result(part, 'left out', why))
        else:
            results.append(run(part, min(part.limit, left)))
        took = time.monotonic() - begun
        write(args.out, report(machine, results, took, len(selected) - number))
        found = FIGURES.search(results[-1].text)
        figure = f': c / (a + b) = {found["ratio"]}' if found else f': {why}' if why else ''
        print(f'{took:5.0f} s  {part.name}  {results[-1].state}{figure}', flush=True)
    print(f'written to {args.out}')
    if _signals:
        raise SystemExit(128 + _signals[0])
    if failed := [result.part.name for result in results if result.state in ('failed', 'out of time')]:
        raise SystemExit(f'not all went well: {", ".join(failed)}; the file has their last lines')


if __name__ == '__main__':
    main()
