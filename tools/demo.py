#!/usr/bin/env python
"""Train a plain student on embedded data, distil it with several methods, and print one table.

`--data digits` classifies (top-1 accuracy in %), `--data digit_scenes` detects (mAP at IoU 0.5, in %). Every row is a
run of `tools/train.py`; the figure is that of the last epoch. With several seeds the table shows mean and standard
deviation, and how many standard errors each method is above the plain student.
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
PLAIN = 'plain student'


@dataclass
class Demo:
    """What is trained on one kind of data.

    Attributes:
        metric: As the evaluator logs it.
        scale: From that to %.
        shown: What the table calls it.
        teacher: Config of the teacher; its checkpoint ships with the package.
        runs: Configs by row.
    """

    metric: str
    scale: float
    shown: str
    teacher: str
    runs: dict[str, str]


DEMOS = {
    'digits': Demo(
        'accuracy/top1',
        1,
        'top-1 accuracy (%), 1,000 test images',
        'digits/resnet_teacher.py',
        {PLAIN: 'digits/resnet_student.py', 'KD': 'kd_resnet.py', 'DKD': 'dkd_resnet.py'},
    ),
    'digit_scenes': Demo(
        'pascal_voc/mAP',
        100,
        'mAP at IoU 0.5 (%), 200 test scenes',
        'digit_scenes/faster_rcnn_teacher.py',
        {
            PLAIN: 'digit_scenes/faster_rcnn_student.py',
            'DKD': 'dkd_faster_rcnn.py',
            'NST': 'digit_scenes/nst_faster_rcnn.py',
            'ReviewKD': 'digit_scenes/reviewkd_faster_rcnn.py',
            'DKD + ReviewKD': 'digit_scenes/dkd_reviewkd_faster_rcnn.py',
        },
    ),
}


@dataclass
class Row:
    """One line of the table."""

    name: str
    figures: list[float] = field(default_factory=list)
    parameters: int = 0
    checkpoint: str = ''


def train(demo: Demo, name: str, seed: int, work_dir: Path, options: list[str]) -> tuple[float, float | None, str]:
    """One run of `tools/train.py` with a line of progress.

    Returns:
        The student's last figure, the teacher's (None for a plain student), the checkpoint.

    Raises:
        SystemExit: If the run failed; its log is named.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / 'train.log'
    command = [
        sys.executable, '-W', 'ignore', str(ROOT / 'tools/train.py'), str(ROOT / 'configs' / demo.runs[name]),
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
            if 'Epoch(val)' in line and f' {demo.metric}:' in line:
                student = figure(line, demo.metric, demo.scale)
                teacher = figure(line, f'teacher/{demo.metric}', demo.scale)
            text = f'  {name}, seed {seed}: epoch {epoch}, {demo.metric} {"-" if student is None else student}'
            end = '\r' if sys.stdout.isatty() else ''
            print(f'{text:70}' if end else '', end=end, flush=True)
    if process.returncode or student is None:
        tail = ''.join(log.read_text().splitlines(keepends=True)[-15:])
        raise SystemExit(f'{tail}\n{name} failed, the whole log is {log}')
    seconds = time.monotonic() - started
    print(f'  {name}, seed {seed}: {student:.2f} after epoch {epoch}, {seconds:.0f} s'.ljust(70))
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    return student, teacher, checkpoint


def figure(line: str, metric: str, scale: float) -> float | None:
    """A metric in a line of the log."""
    values = line.replace(': ', ' ').split()
    return float(values[values.index(metric) + 1]) * scale if metric in values else None


def count_parameters(config: str) -> int:
    """Parameters of the plain model in a config."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    import mmkd_plugin  # noqa: F401 (registers)
    from mmkd_plugin.teachers import plain_student

    cfg = Config.fromfile(str(ROOT / 'configs' / config))
    init_default_scope(cfg.default_scope)
    return sum(p.numel() for p in MODELS.build(plain_student(cfg.model)).parameters())


def show(path: str) -> str:
    """A path as short as it can be."""
    return os.path.relpath(path, ROOT) if Path(path).is_relative_to(ROOT) else path


def table(demo: Demo, rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [f'| model | {demo.shown} | parameters | checkpoint |', '| --- | --- | --- | --- |']
    for row in rows:
        value = f'{statistics.mean(row.figures):.2f}'
        if len(row.figures) > 1:
            value += f' ± {statistics.stdev(row.figures):.2f}'
        lines.append(f'| {row.name} | {value} | {row.parameters:,} | {show(row.checkpoint)} |')
    return '\n'.join(lines)


def verdict(name: str, plain: list[float], distilled: list[float]) -> str:
    """How far the distilled mean is above the plain one, in standard errors of the difference."""
    gain = statistics.mean(distilled) - statistics.mean(plain)
    error = sum(statistics.variance(a) / len(a) for a in (plain, distilled)) ** 0.5
    return f'{name} - plain: {gain:+.2f} points, standard error {error:.2f}' + (
        f', {gain / error:.1f} standard errors' if error else ''
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', choices=DEMOS, default='digits', help='default digits')
    parser.add_argument('--seeds', type=int, default=1, help='runs of each row (default 1)')
    parser.add_argument('--work-dir', type=Path, help='default work_dirs/demo (digits), work_dirs/demo_digit_scenes')
    parser.add_argument('--cfg-options', nargs='*', default=[], help='passed on to tools/train.py')
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f'--seeds {args.seeds} given, expected at least 1')
    demo = DEMOS[args.data]
    work_dir = args.work_dir or ROOT / 'work_dirs' / ('demo' if args.data == 'digits' else f'demo_{args.data}')

    student = count_parameters(demo.runs[PLAIN])
    rows = {name: Row(name, parameters=student) for name in demo.runs}
    weights = (ROOT / 'mmkd_plugin/checkpoints' / demo.teacher).with_suffix('.pth')
    teacher = Row('teacher', parameters=count_parameters(demo.teacher), checkpoint=str(weights))
    print(f'{len(rows) * args.seeds} training runs on the embedded {args.data}, logs in {work_dir}')
    for seed in range(args.seeds):
        for name, row in rows.items():
            folder = work_dir / f'{name.replace(" + ", "_").replace(" ", "_").lower()}-seed{seed}'
            value, measured, row.checkpoint = train(demo, name, seed, folder, args.cfg_options)
            row.figures.append(value)
            if measured is not None:
                teacher.figures = [measured]
    print(f'\nLast epoch, {args.seeds} seed(s):\n')
    print(table(demo, [teacher, *rows.values()]))
    if args.seeds > 1:
        plain = rows.pop(PLAIN)
        print()
        for row in rows.values():
            print(verdict(row.name, plain.figures, row.figures))
        rows[PLAIN] = plain
    result = {row.name: row.figures for row in [teacher, *rows.values()]}
    from mmkd_plugin.files.atomic import write_text

    write_text(work_dir / 'results.json', json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
