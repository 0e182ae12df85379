"""Arguments that `train.py` and `test.py` share. Imports little, so that `--help` and slips are answered at once."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction


def run_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of what every run takes; the tool adds its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='path of the config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='change settings of the config, such as train_cfg.max_epochs=2 model.head.topk=[1,5]',
    )  # fmt: skip
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it in either spelling
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def parse_run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of a run whose config is there.

    Raises:
        SystemExit: If it is not, or the arguments are none of the parser's.
    """
    args = parser.parse_args(argv)
    if not (path := Path(args.config)).is_file():
        raise SystemExit(f"config '{args.config}' does not exist (looked at {path.absolute()})")
    return args
