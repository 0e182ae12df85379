#!/usr/bin/env python
"""Find teachers for a student in the model zoos of the installed packages (mmpretrain, mmdet, and ours).

Candidates know the same data set and classes, and have a better published metric. Each is shown with its parameters,
multiply-adds, gap, what it has in common with the student that losses can compare, and the line to paste into a
distilled config. Nothing is downloaded, and no weights are read. First come those close enough for direct distillation
by a rule of thumb, of the student's image size, of its kind, with its kind of backbone; then by metric.
"""

import argparse
import json
from collections.abc import Sequence

from mmengine.config import DictAction


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="the student's: plain or distilled, a path or package::path")
    parser.add_argument(
        '--better-than',
        type=float,
        metavar='N',
        help="the student's metric in %%; default: as published for its network",
    )
    parser.add_argument('--limit', type=int, default=10, metavar='N', help='candidates to show (default 10)')
    parser.add_argument('--json', action='store_true', help='for programs')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in train.py')
    args = parser.parse_args(argv)
    if args.limit < 1:
        parser.error(f'--limit {args.limit} given, expected at least 1')
    if args.better_than is not None and not 0 <= args.better_than <= 100:
        parser.error(f'--better-than {args.better_than:g} given, expected a metric in %, from 0 to 100')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Search and print.

    Returns:
        0 if there are candidates, 1 if there are none.
    """
    args = parse(argv)
    import logging

    from mmengine.registry import init_default_scope

    import mmkd_plugin  # noqa: F401 (registers)
    from mmkd_plugin.zoo import find_teacher, plain, text

    logging.disable(logging.INFO)  # of everything that is built and looked at
    init_default_scope('mmengine')
    try:
        found = find_teacher(args.config, args.better_than, args.cfg_options, args.limit)
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise SystemExit(f'find_teacher.py: {error}') from error
    print(json.dumps(plain(found, args.limit), indent=1) if args.json else text(found, args.limit))
    return 0 if found.candidates else 1


if __name__ == '__main__':
    raise SystemExit(main())
