#!/usr/bin/env python
"""Does condensing the training data pay? Each value of KCDHook against chance, and against plain distillation.

On 1,000 digits: clean, with 10 % of wrong labels, and with near-duplicates. A small teacher is trained first; then a
LeNet-5 is distilled from it on all data (for 20 epochs, and for as many passes as condensing takes), on a part drawn by
chance (anew in each round, or once), and on the part that each value ranks first, in each way to treat the samples that
were dropped. All cases run with seed 0 first, then with seed 1, and so on. Called again, it goes on where it was.

Writes table.md, values.json and picture.png into WORK_DIR, which has configs and logs as well. Each run is a fork of
this process where there is no GPU; 5 seeds are 370 runs of about 10 s of one core.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import train

ROOT = Path(__file__).resolve().parent.parent


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/kcd_experiment'), help='default %(default)s')
    parser.add_argument('--seeds', type=int, default=5, metavar='N', help='seeds 0 to N - 1 (default 5)')
    parser.add_argument('--epochs', type=int, default=20, metavar='N', help='more than 8 (default 20)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at once (default 1)')
    parser.add_argument('--only', nargs='+', metavar='TEXT', help='cases whose config has one of these in its name')
    parser.add_argument(
        '--table-only', action='store_true', help='train nothing; table and picture of what is finished'
    )
    args = parser.parse_args(argv)
    for name, least in (('seeds', 1), ('jobs', 1), ('epochs', 9)):
        if getattr(args, name) < least:
            parser.error(f'--{name} {getattr(args, name)} given, expected at least {least}')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not finished, and write what came out.

    Returns:
        0 if all went well, 1 if a run failed, 130 if it was interrupted.
    """
    args = parse(argv)
    import torch

    torch.set_num_threads(1)  # before anything is computed: forks of several threads hang
    from mmkd_plugin.experiments import Fork, Pool, Run, Screen, interruptible, parameters_of, plan_runs, read_entries
    from mmkd_plugin.kcd.experiment import write_configs
    from mmkd_plugin.launch import occupy, run_train

    screen = Screen()
    teacher, cases = write_configs(args.work_dir, args.epochs)
    if args.only and not any(text in case.name for case in cases.values() for text in args.only):
        raise SystemExit(f'{Path(sys.argv[0]).name}: --only {" ".join(args.only)} names no case')
    try:
        (entry,) = read_entries([str(teacher)])
        first = Run(entry, 0, args.work_dir / 'teacher')
        entries = read_entries([str(path) for path in cases])
        runs = plan_runs(entries, args.seeds, args.work_dir / 'runs')
    except ValueError as error:
        raise SystemExit(f'{Path(sys.argv[0]).name}: {error}') from error
    by_name = {path.stem: case for path, case in cases.items()}
    if args.only:
        runs = [run for run in runs if any(text in run.entry.name for text in args.only)]
    if args.table_only:
        print(report(by_name, runs, args.work_dir))
        return 0
    screen.say(f'{len(runs)} runs, {sum(run.result is not None for run in runs)} of them finished before')
    interrupted = False
    with occupy(args.work_dir), interruptible():
        try:
            parameters_of(entry.config)  # imports all that the runs import
            start: Any = None if torch.cuda.is_available() else partial(Fork, train=lambda a: run_train(train.parse(a)))
            pool = Pool(ROOT / 'tools/train.py', (), args.jobs, 1, screen, start)
            pool.train([first], {}, lambda run: None)
            if first.result is None:
                raise SystemExit(f'the teacher could not be trained: {first.failure}; the log is {first.log}')
            pool.train(runs, {}, lambda run: None)
        except KeyboardInterrupt:
            interrupted = True
    screen.say('\n' + report(by_name, runs, args.work_dir))
    if interrupted:
        screen.say('Interrupted; the same command goes on.')
        return 130
    return int(any(run.failure is not None for run in runs))


def report(cases: Any, runs: Sequence[Any], work_dir: Path) -> str:
    """Write all files; returns the table."""
    from mmkd_plugin.files.atomic import write_bytes, write_text
    from mmkd_plugin.kcd.experiment_table import draw, markdown, read_rows, values

    rows = read_rows(cases, runs)
    table = markdown(rows)
    write_text(work_dir / 'table.md', table)
    write_text(work_dir / 'values.json', values(rows))
    picture = io.BytesIO()
    draw(rows).savefig(picture, format='png', dpi=130)
    write_bytes(work_dir / 'picture.png', picture.getvalue())
    return table


if __name__ == '__main__':
    raise SystemExit(main())
