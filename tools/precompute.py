#!/usr/bin/env python
"""Fill the knowledge stores of a config ahead of training.

What is there already is left alone, so that the same command goes on where a killed one was. Several processes share
the work: --jobs on this machine (spread over its GPUs), --part K/N on others that see the same folder.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from arguments import config_file
from mmengine.config import DictAction


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a distilled config whose teacher has store=dict(path=..., views=...)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='processes at once (default 1)')
    parser.add_argument('--part', metavar='K/N', help='only the K-th of N parts, from 0: 0/4 to 3/4 on four machines')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='as in train.py, such as train_dataloader.batch_size=256',
    )  # fmt: skip
    args = parser.parse_args(argv)
    try:
        args.config = config_file(args.config)
    except FileNotFoundError as error:
        parser.error(str(error))
    if args.jobs < 1:
        parser.error(f'--jobs {args.jobs} given, expected at least 1')
    part = (args.part or '0/1').split('/')
    if len(part) != 2 or not all(number.isdecimal() for number in part) or not int(part[0]) < int(part[1]):
        parser.error(f'--part {args.part} given, expected K/N with K < N, as in 0/4')
    args.part = int(part[0]), int(part[1])
    return args


def share(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Start the processes, and wait; the worst exit code."""
    import torch

    part, parts = args.part
    gpus, started = torch.cuda.device_count(), []
    command = [sys.executable, __file__, *argv]
    for job in range(args.jobs):
        environment = dict(os.environ)
        if gpus > 1:
            environment['CUDA_VISIBLE_DEVICES'] = str(job % gpus)
        own = ['--jobs', '1', '--part', f'{part + job * parts}/{parts * args.jobs}']
        started.append(subprocess.Popen([*command, *own], env=environment))
    return max(abs(process.wait()) for process in started)


def main(argv: Sequence[str] | None = None) -> int:
    """Fill, and say what was written."""
    args = parse(argv)
    if args.jobs > 1:
        return share(args, sys.argv[1:] if argv is None else argv)
    from mmkd_plugin.precompute import fill

    written = fill(args)
    for name, (count, seconds) in written.items():
        print(f'{name}: {count} records written in {seconds:.1f} s, {count / max(seconds, 1e-9):.0f} a second')
    if not written:
        print('nothing was missing')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
