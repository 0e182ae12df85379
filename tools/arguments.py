"""Arguments that tools share. Imports little, so that `--help` and slips are answered at once."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction


def run_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of what every run takes; the tool adds its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='path of the config file, or package::path of one that a package carries')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='change settings of the config, such as train_cfg.max_epochs=2 model.head.topk=[1,5]',
    )  # fmt: skip
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it in either spelling
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def config_file(given: str) -> str:
    """The path of a config file that is there.

    Args:
        given: A path, or ``package::path`` of a config that an installed package carries, such as
            ``mmkd_plugin::dkd_resnet.py``; the package is not imported.

    Raises:
        FileNotFoundError: If it is not there, or the package is not installed.
    """
    package, separator, name = given.partition('::')
    path = Path(given)
    if separator:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"config '{given}' does not exist: there is no package '{package}'")
        path = Path(spec.submodule_search_locations[0], '.mim', 'configs', name).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"config '{given}' does not exist (looked at {path.absolute()})")
    return str(path) if separator else given


def parse_run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of a run whose config is there.

    Raises:
        SystemExit: If it is not, or the arguments are none of the parser's.
    """
    args = parser.parse_args(argv)
    try:
        args.config = config_file(args.config)
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    return args
