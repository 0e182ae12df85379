#!/usr/bin/env python
"""Explain what a student learned: which parts of images a layer keeps, with a teacher and without.

Finds for each image the strongest noise that leaves a tapped layer nearly as it is (Cheng et al., CVPR 2020). Where a
cell takes less noise than the background does, the layer knows something: a visual concept. Student and baseline are
compared by three hypotheses: more concepts of the foreground and fewer of the background; learned earlier and more
simultaneously; with fewer detours. docs/explaining.md says what the numbers mean.

CHECKPOINTS are files, or work folders of runs: several of them are seeds, and with PathLengthHook in the config a
folder has what the last two hypotheses need. Writes table.md, values.json, pictures and page.html into OUT_DIR. What
was found of an image is kept in WORK_DIR, so that the same command goes on after an interruption.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction

QUICK = dict(images=6, noise=24, checkpoints=4)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='that the student was trained with, or the plain one')
    parser.add_argument('students', nargs='+', metavar='CHECKPOINTS', help='of the distilled student: files or folders')
    parser.add_argument(
        '--baseline', nargs='+', required=True, metavar='CHECKPOINTS', help='of the same network without a teacher'
    )
    parser.add_argument('--teacher', action='store_true', help="look at the config's teacher as well")
    parser.add_argument(
        '--tap', nargs='+', action='extend', metavar='TAP',
        help="which layers, such as backbone.layer4 or neck[1], or student=teacher; default: a classifier's last",
    )  # fmt: skip
    parser.add_argument(
        '--layer', nargs='+', action='extend', metavar='MODULE',
        help='whose weights make the path, one for each tap; default: the tapped module',
    )  # fmt: skip
    parser.add_argument('--images', type=int, metavar='N', help='of the test data, spread evenly (default 50)')
    parser.add_argument(
        '--masks', default='centre', metavar='centre|boxes|FOLDER',
        help='where the foreground is: a box in the centre (default), the annotated boxes, or images in a folder, '
        'STEM.png or INDEX.png, not 0 in the foreground',
    )  # fmt: skip
    parser.add_argument('--skip-empty', action='store_true', help='leave out images without foreground or background')
    parser.add_argument('--keep-all', action='store_true', help='as well as those that discard their foreground most')
    parser.add_argument(
        '--cells', default='16', metavar='N|tap', help="in each direction (default 16); 'tap': those of the tapped map"
    )
    parser.add_argument('--noise', type=int, metavar='N', help='samples in each step (default 96)')
    parser.add_argument('--steps', type=int, default=80, help='of the optimiser (default 80)')
    parser.add_argument('--weight', type=float, default=6.0, help='of the entropy (default 6; 7 for VGG and AlexNet)')
    parser.add_argument('--threshold', type=float, default=0.2, help='of a concept, in nats (default 0.2)')
    parser.add_argument(
        '--level', choices=('image', 'all'), default='image', help='whose background concepts stand out'
    )
    parser.add_argument('--checkpoints', type=int, metavar='N', help='at most so many of each run, the last included')
    parser.add_argument(
        '--quick', action='store_true', help=f'a first look: {", ".join(f"{v} {k}" for k, v in QUICK.items())}'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the noise')
    parser.add_argument('--batch', type=int, default=8, metavar='N', help='images at once (default 8)')
    parser.add_argument(
        '--rows', type=int, default=96, metavar='N', help='images with noise at once, which decides over memory'
    )
    parser.add_argument('--work-dir', type=Path, help="default: 'explain' in the config's work folder")
    parser.add_argument('--out-dir', type=Path, help='default: WORK_DIR')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in train.py')
    args = parser.parse_args(argv)
    for name, default in (('images', 50), ('noise', 96), ('checkpoints', None)):
        if getattr(args, name) is None:
            setattr(args, name, QUICK[name] if args.quick else default)
        elif getattr(args, name) < 1:
            parser.error(f'--{name} {getattr(args, name)} given, expected at least 1')
    for name in ('batch', 'rows', 'steps'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} {getattr(args, name)} given, expected at least 1')
    if args.cells != 'tap' and not (args.cells.isdecimal() and int(args.cells) > 0):
        parser.error(f"--cells {args.cells} given, expected a whole number or 'tap'")
    if args.layer and len(args.layer) != len(args.tap or [1]):
        parser.error(f'{len(args.layer)} --layer given for {len(args.tap or [1])} --tap, expected one for each')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Find what is missing, and write what came out.

    Returns:
        0 if all went well, 130 if it was interrupted.
    """
    args = parse(argv)
    from mmkd_plugin.analysis.study import explain
    from mmkd_plugin.launch import occupy

    try:
        print(explain(args, occupy))
    except (FileNotFoundError, ModuleNotFoundError, TypeError, ValueError) as error:
        raise SystemExit(f'explain.py: {error}') from error
    except KeyboardInterrupt:
        print('\nInterrupted; the same command goes on from the last images.')
        return 130
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
