#!/usr/bin/env python
"""Train the plain digits student, distil it with KD and DKD, and print one table.

Every row is a run of `tools/train.py`; the accuracy is that of the last epoch. With several seeds
the table shows mean and standard deviation, and how many standard errors DKD is above the plain
student.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
METRIC = 'accuracy/top1'
RUNS = {
    'plain student': 'configs/digits/resnet_student.py',
    'KD': 'configs/kd_resnet.py',
    'DKD': 'configs/dkd_resnet.py',
}


@dataclass
class Row:
    """One line of the table."""

    name: str
    accuracies: list[float] = field(default_factory=list)
    parameters: int = 0
    checkpoint: str = ''


def train(name: str, seed: int, work_dir: Path, options: list[str]) -> tuple[float, float | None, str]:
    """One run of `tools/train.py` with a line of progress.

    Returns:
        The student's last accuracy, the teacher's (None for a plain student), the checkpoint.

    Raises:
        SystemExit: If the run failed; its log is named.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / 'train.log'
    command = [
        sys.executable, '-W', 'ignore', str(ROOT / 'tools/train.py'), str(ROOT / RUNS[name]),
        '--work-dir', str(work_dir), '--cfg-options', f'randomness.seed={seed}', *options,
    ]  # fmt: skip
    started = time.monotonic()
    student = teacher = None
    epoch = ''
    with (
        log.open('w') as file,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if 'Epoch(' not in line:
                continue
            epoch = line.split('[')[1].split(']')[0]
            if 'Epoch(val)' in line and f' {METRIC}:' in line:
                values = line.replace(':', '').split()
                student = float(values[values.index(METRIC) + 1])
                if f'teacher/{METRIC}' in values:
                    teacher = float(values[values.index(f'teacher/{METRIC}') + 1])
            text = f'  {name}, seed {seed}: epoch {epoch}, {METRIC} {student or "-"}'
            end = '\r' if sys.stdout.isatty() else ''
            print(f'{text:70}' if end else '', end=end, flush=True)
    if process.returncode or student is None:
        tail = ''.join(log.read_text().splitlines(keepends=True)[-15:])
        raise SystemExit(f'{tail}\n{name} failed, the whole log is {log}')
    seconds = time.monotonic() - started
    print(f'  {name}, seed {seed}: {METRIC} {student:.2f} after epoch {epoch}, {seconds:.0f} s'.ljust(70))
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    return student, teacher, checkpoint


def count_parameters(config: str) -> int:
    """Parameters of the plain model in a config."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    import mmkd_plugin  # noqa: F401 (registers)
    from mmkd_plugin.teachers import plain_student

    cfg = Config.fromfile(str(ROOT / config))
    init_default_scope(cfg.default_scope)
    return sum(p.numel() for p in MODELS.build(plain_student(cfg.model)).parameters())


def show(path: str) -> str:
    """A path as short as it can be."""
    return os.path.relpath(path, ROOT) if Path(path).is_relative_to(ROOT) else path


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ['| model | top-1 accuracy (%) | parameters | checkpoint |', '| --- | --- | --- | --- |']
    for row in rows:
        accuracy = f'{statistics.mean(row.accuracies):.2f}'
        if len(row.accuracies) > 1:
            accuracy += f' ± {statistics.stdev(row.accuracies):.2f}'
        lines.append(f'| {row.name} | {accuracy} | {row.parameters:,} | {show(row.checkpoint)} |')
    return '\n'.join(lines)


def verdict(plain: list[float], distilled: list[float]) -> str:
    """How far the distilled mean is above the plain one, in standard errors of the difference."""
    gain = statistics.mean(distilled) - statistics.mean(plain)
    error = sum(statistics.variance(a) / len(a) for a in (plain, distilled)) ** 0.5
    return f'DKD - plain: {gain:+.2f} points, standard error {error:.2f}' + (
        f', {gain / error:.1f} standard errors' if error else ''
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, default=1, help='runs of each row (default 1)')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'demo')
    parser.add_argument('--cfg-options', nargs='*', default=[], help='passed on to tools/train.py')
    args = parser.parse_args()

    student = count_parameters(RUNS['plain student'])
    rows = {name: Row(name, parameters=student) for name in RUNS}
    teacher = Row(
        'teacher',
        parameters=count_parameters('configs/digits/resnet_teacher.py'),
        checkpoint=str(ROOT / 'mmkd_plugin/checkpoints/digits/resnet_teacher.pth'),
    )
    print(f'{len(RUNS) * args.seeds} training runs on the embedded digits, logs in {args.work_dir}')
    for seed in range(args.seeds):
        for name, row in rows.items():
            folder = args.work_dir / f'{name.replace(" ", "_").lower()}-seed{seed}'
            accuracy, measured, row.checkpoint = train(name, seed, folder, args.cfg_options)
            row.accuracies.append(accuracy)
            if measured is not None:
                teacher.accuracies = [measured]
    print(f'\nLast epoch, 1,000 test images, {args.seeds} seed(s):\n')
    print(table([teacher, *rows.values()]))
    if args.seeds > 1:
        print('\n' + verdict(rows['plain student'].accuracies, rows['DKD'].accuracies))
    result = {row.name: row.accuracies for row in [teacher, *rows.values()]}
    from mmkd_plugin.fileio import write_text

    write_text(args.work_dir / 'results.json', json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
