#!/usr/bin/env python
"""Evaluate a checkpoint of a plain or distilled student; needs no teacher."""

import argparse
import gc
from collections.abc import Sequence

from arguments import parse_run, run_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = run_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', metavar='RESULTS.pkl', help='save the predictions')
    return parse_run(parser, argv)


if __name__ == '__main__':
    args = parse()
    gc.disable()  # for the imports; the launcher switches it on
    from mmkd_plugin.launch import run_test

    run_test(args)
