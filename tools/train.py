#!/usr/bin/env python
"""Train a model: a plain student, a teacher, or a distilled student."""

import argparse
import gc
from collections.abc import Sequence

from arguments import parse_run, run_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = run_parser(__doc__)
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='CHECKPOINT',
        help='go on from this checkpoint; without a path, from the latest in the work folder',
    )  # fmt: skip
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--no-validate', action='store_true', help='skip validation')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale lr with the batch size')
    return parse_run(parser, argv)


if __name__ == '__main__':
    args = parse()
    gc.disable()  # for the imports; the launcher switches it on
    from mmkd_plugin.launch import run_train

    run_train(args)
