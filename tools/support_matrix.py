#!/usr/bin/env python
"""Try what of mmdet's own detectors can be distilled, and write it down.

Takes the plainest config of each family of mmdet (a folder of its configs) and of each method, or
those that are named; builds it untrained, with a copy as its teacher, and takes a training step with
each kind of distillation. What was found is kept in docs/results/detectors.json, config by config:
a walk that was stopped goes on, and what is there is not tried again. `--write` makes the table of
docs/detectors.md from it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs/results/detectors.json'
PAGE = ROOT / 'docs/detectors.md'


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'names', nargs='*', metavar='NAME', help='a family (gfl) or a config (gfl/gfl_r50_fpn_1x_coco.py)'
    )
    parser.add_argument('--jobs', type=int, default=1, help='configs at once (default 1)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads of each (default 1)')
    parser.add_argument('--seconds', type=float, default=300, help='for a config at most (default 300)')
    parser.add_argument('--memory', type=float, default=12, help='for a config at most, in GiB (default 12)')
    parser.add_argument('--again', action='store_true', help='try also what was found before')
    parser.add_argument('--list', action='store_true', help='print the configs, and try none')
    parser.add_argument('--write', action='store_true', help='make the table of docs/detectors.md, and try none')
    parser.add_argument(
        '--results', type=Path, default=RESULTS, metavar='FILE', help='default: docs/results/detectors.json'
    )
    parser.add_argument(
        '--logs', type=Path, default=Path('work_dirs/support_matrix'), metavar='FOLDER', help='tracebacks'
    )
    args = parser.parse_args(argv)
    for name in ('jobs', 'threads', 'seconds', 'memory'):
        if not getattr(args, name) > 0:
            parser.error(f'--{name} {getattr(args, name)} given, expected more than 0')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Walk, list or write."""
    args = parse(argv)
    from mmkd_plugin.support import Limits, Record, all_configs, config_folder, named, walk, write_page

    try:
        record = Record(args.results)
        if args.write:
            print(f'{PAGE.relative_to(ROOT)}: ' + ('written' if write_page(PAGE, record) else 'says it already'))
            return
        root = config_folder()
        configs = named(args.names, all_configs(root))
    except (ValueError, ModuleNotFoundError) as error:
        raise SystemExit(f'support_matrix: {error}') from error
    if args.list:
        print('\n'.join(configs))
        return
    wanted = [config for config in configs if args.again or config not in record.found]
    if len(wanted) < len(configs):
        print(f'{len(configs) - len(wanted)} of {len(configs)} were tried before; --again tries them anew')
    walk(wanted, root, record, args.logs, args.jobs, Limits(args.seconds, args.memory * 1024, args.threads))


if __name__ == '__main__':
    main()
