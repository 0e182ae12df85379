#!/usr/bin/env python
"""Train a chain of configs one after the other, of which later ones learn from earlier ones.

Every link is a run of `tools/train.py` in WORK_DIR_ROOT/NAME, NAME being its file's name without '.py'. That is where
configs look for a teacher that another config trains: checkpoint='work_dirs/NAME/epoch_40.pth'. Such a path follows
--work-dir-root; if it is the last checkpoint of NAME as its config says, it is the last one whatever --cfg-options say.

Called again, what is finished is kept and what was killed goes on from its last checkpoint. A link that fails ends the
chain. A run that was made with another config, other options or another seed is an error. At the end comes a table.

    python tools/chain.py configs/digits/flow_auxiliary_resnet.py configs/digits/flow_resnet.py
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import compare
from arguments import config_file
from mmengine.config import DictAction


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='in the order in which they are trained')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of all links (default 0)')
    parser.add_argument(
        '--work-dir-root', type=Path, default=Path('work_dirs'), metavar='DIR', help='default work_dirs'
    )
    parser.add_argument('--threads', type=int, default=1, metavar='N', help='CPU threads (default 1)')
    parser.add_argument(
        '--metric', help='as it is logged, such as accuracy/top1; default: the only one, or the usual one of the task'
    )
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='as in train.py, for all')
    args = parser.parse_args(argv)
    if args.threads < 1:
        parser.error(f'--threads {args.threads} given, expected at least 1')
    try:
        args.configs = [config_file(given) for given in args.configs]
    except FileNotFoundError as error:
        parser.error(str(error))
    if wrong := [given for given in args.cfg_options if '=' not in given]:
        parser.error(f'--cfg-options {wrong[0]} given, expected KEY=VALUE')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not finished.

    Returns:
        0 if all links are finished, 1 if one failed, 130 if it was interrupted.
    """
    args = parse(argv)
    from mmkd_plugin.experiments import Pool, Screen, forge, interruptible, link_table
    from mmkd_plugin.launch import occupy

    given = argparse.Namespace()
    DictAction(['--cfg-options'], 'values')(argparse.ArgumentParser(), given, args.cfg_options)
    screen = Screen()
    try:
        links = forge(args.configs, args.seed, args.work_dir_root, given.values)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'{Path(sys.argv[0]).name}: {error}') from error
    interrupted = False
    with occupy(args.work_dir_root), interruptible():
        try:
            for number, link in enumerate(links, start=1):
                done = 'was finished before' if link.run.result else f'is in {link.run.folder}'
                screen.say(f'link {number} of {len(links)}, {link.run.entry.name}, {done}')
                counts = {} if link.run.result else compare.count({link.run.entry.name: link.run.entry.config}, screen)
                options = [*args.cfg_options, *link.options]
                pool = Pool(compare.ROOT / 'tools/train.py', options, 1, args.threads, screen)
                pool.train([link.run], counts, lambda run: None)
                if link.run.failure is not None:
                    break
        except KeyboardInterrupt:
            interrupted = True
    try:
        screen.say('\n' + link_table(links, args.metric))
    except ValueError as error:
        screen.say(f'no table: {error}')
    if interrupted:
        screen.say('Interrupted; the same command goes on from the last checkpoint.')
        return 130
    return int(any(link.run.result is None for link in links))


if __name__ == '__main__':
    raise SystemExit(main())
