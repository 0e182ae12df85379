#!/usr/bin/env python
"""Take a few real training steps of a distillation config, and say what looks wrong and what to change.

Reports the teacher's and the student's metric on some validation images; value, weight and share of the gradient of
each loss, and its angle to the task's; what the taps read; how soft the predictions are; where time and memory go. Then
come findings, of the list in docs/trouble.md. With CHECKPOINT the student starts from there, which also tells whether
the teacher is better than it. Nothing is written. In training DiagnoseHook logs the shares.
"""

import argparse
import json
from collections.abc import Sequence

from mmengine.config import DictAction


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', help='of a distilled model')
    parser.add_argument('checkpoint', nargs='?', help='of the student; without one it is untrained')
    parser.add_argument('--steps', type=int, default=12, metavar='N', help='of training (default 12)')
    parser.add_argument(
        '--val-images', type=int, default=200, dest='images', metavar='N', help='to evaluate on (default 200)'
    )
    parser.add_argument('--json', action='store_true', help='for programs')
    parser.add_argument('--findings', action='store_true', help='print the list of what is looked for, and end')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in train.py')
    args = parser.parse_args(argv)
    if args.steps < 4:
        parser.error(f'--steps {args.steps} given, expected at least 4')
    if args.images < 1:
        parser.error(f'--val-images {args.images} given, expected at least 1')
    if args.config is None and not args.findings:
        parser.error('a config is missing')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Watch and print.

    Returns:
        0 if nothing was found, 1 otherwise.
    """
    args = parse(argv)
    import os

    os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    from mmkd_plugin.diagnosis import diagnose, found, markdown, plain, text

    if args.findings:
        print(markdown())
        return 0
    try:
        measured = diagnose(args)
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise SystemExit(f'diagnose.py: {error}') from error
    print(json.dumps(plain(measured), indent=1) if args.json else text(measured))
    return int(bool(found(measured)))


if __name__ == '__main__':
    raise SystemExit(main())
