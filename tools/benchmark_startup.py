#!/usr/bin/env python
"""Measure how long our commands take to start: the first training iteration, the doctor, and --help of each tool.

Every run is a process of its own. The least of some rounds counts, with the most behind it: other work on the machine
only ever adds. One more run with python's -X importtime, which slows it, tells which packages were imported.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

CONFIGS = ('digits/resnet_student.py', 'dkd_resnet.py')


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', default=CONFIGS, help=f'below configs/; default: {" ".join(CONFIGS)}')
    parser.add_argument('--rounds', type=int, default=3, help='measured runs of each (default 3)')
    parser.add_argument(
        '--root', type=Path, default=Path(__file__).resolve().parents[1], help='another checkout, to compare with'
    )
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f'--rounds {args.rounds} given, expected at least 1')
    return args


def start(command: Sequence[str], root: Path, until: str | None = None) -> tuple[float, list[str]]:
    """Seconds until a process has printed something, or has ended, and what it printed until then.

    Raises:
        SystemExit: If it ended otherwise.
    """
    begin = time.perf_counter()
    lines = []
    with subprocess.Popen(
        [sys.executable, *command], cwd=root, env={**os.environ, 'PYTHONPATH': str(root)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if until is not None and until in line:
                seconds = time.perf_counter() - begin
                process.kill()
                return seconds, lines
    if process.returncode or until is not None:
        raise SystemExit(f'{"".join(lines[-10:])}\n{" ".join(command)} ended with {process.returncode}')
    return time.perf_counter() - begin, lines


def imported(lines: Sequence[str]) -> str:
    """Packages that took 0.05 s or more by themselves, what they import not counted."""
    took: Counter[str] = Counter()
    for line in lines:
        if match := re.match(r'import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)', line):
            took[match[2]] += int(match[1])
    return ', '.join(f'{name} {us / 1e6:.2f}' for name, us in took.most_common() if us >= 50_000)


def report(name: str, command: Sequence[str], args: argparse.Namespace, until: str | None = None) -> None:
    """Print the least and the most of some runs, and what is imported."""
    seconds = [start(command, args.root, until)[0] for _ in range(args.rounds)]
    print(f'{name:32} {min(seconds):6.2f} s (to {max(seconds):.2f})', flush=True)
    if packages := imported(start(['-X', 'importtime', *command], args.root, until)[1]):
        print(f'    imports: {packages}', flush=True)


def main() -> None:
    """Measure and print."""
    args = parse()
    print(f'least (to most) of {args.rounds} runs, {args.root}, python {sys.version.split()[0]}')
    for config in args.configs:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                'tools/train.py', f'configs/{config}', '--work-dir', folder,
                '--cfg-options', 'default_hooks.logger.interval=1',
            ]  # fmt: skip
            report(f'first iteration, {config}', command, args, until='(train)')
    report('doctor', ['-m', 'mmkd_plugin.doctor'], args)
    for tool in sorted((args.root / 'tools').glob('*.py')):
        if '__main__' in tool.read_text():
            report(f'{tool.name} --help', [f'tools/{tool.name}', '--help'], args)


if __name__ == '__main__':
    main()
