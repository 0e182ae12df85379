#!/usr/bin/env python
"""Look after knowledge stores.

info PATH     what it is of, what it keeps, and how much of that is there
check WHAT    read all records and compare checksums; of a config, also compare some with what the teacher says now
prune PATH    remove damaged records, unwanted views, or all of it
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction

_TOLERANCE = 1e-2


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('info', help='what is there')
    one.add_argument('path', type=Path, help='folder of the store')
    one = commands.add_parser('check', help='is it whole, and right?')
    one.add_argument('what', type=Path, help='folder of a store, or a config that reads some')
    one.add_argument('--samples', type=int, default=64, metavar='N', help='of each view, with a config (default 64)')
    one.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in train.py')
    one = commands.add_parser('prune', help='remove what is stale; no run should be using the store')
    one.add_argument('path', type=Path, help='folder of the store')
    one.add_argument('--views', type=int, metavar='N', help='keep the views 0 to N - 1')
    one.add_argument('--all', action='store_true', help='the whole store')
    args = parser.parse_args(argv)
    if args.command == 'check' and args.samples < 1:
        parser.error(f'--samples {args.samples} given, expected at least 1')
    if args.command == 'prune' and args.views is not None and args.views < 0:
        parser.error(f'--views {args.views} given, expected at least 0')
    return args


def check(args: argparse.Namespace) -> int:
    """0 if all is well."""
    from mmkd_plugin.store.upkeep import damaged

    paths, bad = [args.what], False
    if args.what.is_file():
        from mmkd_plugin.precompute import recheck, stores_of

        args.config, paths = str(args.what), stores_of(args.what, args.cfg_options)
        for found in recheck(args):
            bad |= found.difference > _TOLERANCE
            print(f'{found.tap}: {found.compared} records differ by at most {found.difference:.2g} of their spread')
    for path in paths:
        torn = damaged(path)
        bad |= bool(torn)
        told = ', '.join(f'{count} of view {view}' for view, count in torn.items())
        well = 'all records are whole'
        print(f'{path}: ' + (f'damaged records: {told} (a run, or prune, mends that)' if torn else well))
    return int(bad)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what was asked; 1 if something is wrong with a store."""
    args = parse(argv)
    from mmkd_plugin.store import upkeep

    try:
        if args.command == 'check':
            return check(args)
        if args.command == 'info':
            print(upkeep.info(args.path))
        else:
            removed = upkeep.prune(args.path, args.views, args.all)
            print('removed: ' + (', '.join(removed) or 'nothing'))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'{Path(sys.argv[0]).name}: {error}') from error
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
