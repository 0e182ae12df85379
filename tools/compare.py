#!/usr/bin/env python
"""Compare configs fairly: train each over several seeds, and make one table and one picture.

The table has the last epoch's metric, its gain over the plain student with a standard error, and what the gain costs.
Configs may be of mmpretrain or mmdet, by epochs or by iterations. Every run is a process of `tools/train.py` in
WORK_DIR/NAME/seedN; all configs are trained with seed 0 first, then with seed 1, and so on. Called again, what is
finished is kept, what was killed goes on from its last checkpoint, and what failed is tried again. A run that was made
with another config or other options is an error; weights, data and code that a config points to are not watched.

Writes table.md, table.csv, values.json (all that each run gave) and gains.png into WORK_DIR. Metrics that mmdet logs
between 0 and 1 are shown in %. A run is one process; where several GPUs are visible, --jobs spreads the runs over them.
"""

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arguments import config_file
from mmengine.config import DictAction

ROOT = Path(__file__).resolve().parent.parent


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='what to compare')
    parser.add_argument(
        '--plain', required=True, metavar='CONFIG', help='the plain student, or whatever gains count from'
    )
    parser.add_argument('--seeds', type=int, default=5, metavar='N', help='seeds 0 to N - 1 (default 5)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at once (default 1)')
    parser.add_argument('--threads', type=int, default=1, metavar='N', help='CPU threads of each run (default 1)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare'), help='default work_dirs/compare')
    parser.add_argument(
        '--metric', help='as it is logged, such as accuracy/top1; default: the only one, or the usual one of the task'
    )
    parser.add_argument(
        '--name', nargs='+', default=[], action='extend', metavar='CONFIG=NAME',
        help="what the table calls a config; default: as its file is called, without '.py'",
    )  # fmt: skip
    parser.add_argument(
        '--table-only', action='store_true', help='train nothing; table and picture of what is finished'
    )
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='as in train.py, for all')
    args = parser.parse_args(argv)
    for name in ('seeds', 'jobs', 'threads'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} {getattr(args, name)} given, expected at least 1')
    if args.plain not in args.configs:
        args.configs.insert(0, args.plain)
    for option, form in (('name', 'CONFIG=NAME'), ('cfg_options', 'KEY=VALUE')):
        if wrong := [given for given in getattr(args, option) if '=' not in given]:
            parser.error(f'--{option.replace("_", "-")} {wrong[0]} given, expected {form}')
    try:
        files = {given: config_file(given) for given in args.configs}
    except FileNotFoundError as error:
        parser.error(str(error))
    args.configs, args.plain = [files[given] for given in args.configs], files[args.plain]
    named = (given.split('=', 1) for given in args.name)
    args.name = {files.get(config, config): name for config, name in named}
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not finished, and write what came out.

    Returns:
        0 if all went well, 1 if a run failed or there is no table, 130 if it was interrupted.
    """
    args = parse(argv)
    from mmkd_plugin.experiments import Pool, Screen, interruptible, plan_runs, read_entries
    from mmkd_plugin.launch import occupy

    options = argparse.Namespace()
    DictAction(['--cfg-options'], 'values')(argparse.ArgumentParser(), options, args.cfg_options)
    screen = Screen()
    try:
        entries = read_entries(args.configs, args.name, options.values)
        runs = plan_runs(entries, args.seeds, args.work_dir)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'{Path(sys.argv[0]).name}: {error}') from error
    plain = entries[args.configs.index(args.plain)].name
    if args.table_only:
        try:
            print(report(runs, plain, args.metric, args.work_dir))
        except ValueError as error:
            raise SystemExit(f'{Path(sys.argv[0]).name}: {error}') from error
        return 0

    left = [run for run in runs if run.result is None]
    screen.say(
        f'{len(runs)} runs, {len(runs) - len(left)} of them finished before; {args.jobs} at once, {args.threads} CPU '
        f'thread(s) each; everything is in {args.work_dir}'
    )
    if args.jobs * args.threads > (cores := len(os.sched_getaffinity(0))) and left:
        screen.say(f'that is more than the {cores} cores here: runs will be in the way of each other')
    interrupted = False
    with occupy(args.work_dir), interruptible():
        try:
            counts = count({run.entry.name: run.entry.config for run in left}, screen)
            pool = Pool(ROOT / 'tools/train.py', args.cfg_options, args.jobs, args.threads, screen)
            pool.train(runs, counts, lambda run: after(run, runs, plain, args, screen))
        except KeyboardInterrupt:
            interrupted = True
    try:
        screen.say('\n' + report(runs, plain, args.metric, args.work_dir))
        missing = any(run.failure is not None for run in runs)
    except ValueError as error:
        screen.say(f'{Path(sys.argv[0]).name}: {error}')
        missing = True
    if interrupted:
        screen.say('Interrupted; the same command goes on from the last checkpoints.')
        return 130
    return int(missing)


def count(configs: Mapping[str, Any], screen: Any) -> dict[str, dict[str, int]]:
    """Parameters by name; what cannot be built is told, and left to its run to fail."""
    from mmkd_plugin.experiments import parameters_of

    counts = {}
    for name, config in configs.items():
        try:
            counts[name] = parameters_of(config)
        except Exception as error:  # whatever models and losses raise
            screen.say(f'{name} cannot be built here: {type(error).__name__}: {error}')
    return counts


def after(run: Any, runs: Sequence[Any], plain: str, args: argparse.Namespace, screen: Any) -> None:
    """Write table and picture whenever a seed is complete."""
    same = [other for other in runs if other.seed == run.seed]
    if all(other.result or other.failure is not None for other in same):
        try:
            report(runs, plain, args.metric, args.work_dir)
            screen.say(f'seed {run.seed} is complete, the table so far is {args.work_dir / "table.md"}')
        except ValueError as error:
            screen.say(f'no table yet: {error}')


def report(runs: Sequence[Any], plain: str, metric: str | None, work_dir: Path) -> str:
    """Write all files; returns the table, and where they are.

    Raises:
        ValueError: If there is no table, because nothing is finished, or nobody knows which metric is meant.
    """
    from mmkd_plugin.experiments import Comparison, draw_gains
    from mmkd_plugin.files.atomic import write_bytes

    comparison = Comparison(runs, plain, metric)
    comparison.write(work_dir)
    picture = io.BytesIO()
    draw_gains(comparison).savefig(picture, format='png', dpi=150)
    write_bytes(work_dir / 'gains.png', picture.getvalue())
    files = ', '.join(str(work_dir / name) for name in ('table.md', 'table.csv', 'values.json', 'gains.png'))
    return f'{comparison.markdown()}\nWritten: {files}'


if __name__ == '__main__':
    raise SystemExit(main())
