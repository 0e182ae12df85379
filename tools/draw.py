#!/usr/bin/env python
"""Draw ground truth, teacher, plain student and distilled student side by side, for some validation images.

Further pictures show feature maps of teacher and students over the image. Pictures go to the backends of the config's
visualizer; LocalVisBackend writes PNG files.
"""

import argparse
from pathlib import Path

from mmengine.config import DictAction

REDUCTIONS = ('squeeze_mean', 'select_max')  # those of mmkd_plugin.analysis, which takes seconds to import


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a distilled config')
    parser.add_argument('checkpoint', help='checkpoint of the distilled student')
    parser.add_argument('--plain', metavar='CHECKPOINT', help='of the same student, trained without a teacher')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--images', type=int, default=4, metavar='N', help='so many, spread evenly (default 4)')
    which.add_argument('--indices', type=int, nargs='+', metavar='I', help='these of the dataset, from 0')
    parser.add_argument(
        '--tap', nargs='*', action='extend', metavar='TAP',
        help="where to read feature maps: 'neck[1]', or student=teacher as in 'backbone.layer3=backbone.layer4'; "
        "default: where the config's losses read maps; a bare --tap: nowhere",
    )  # fmt: skip
    parser.add_argument(
        '--channels', choices=REDUCTIONS, default='squeeze_mean', help='how the channels of a map become one'
    )
    parser.add_argument(
        '--shared-scale', action='store_true', help='colour the maps in a picture by their common range'
    )
    parser.add_argument('--score-thr', type=float, default=0.3, help='boxes need higher scores (default 0.3)')
    parser.add_argument('--size', type=int, default=400, help='shorter side of a panel in pixels (default 400)')
    parser.add_argument('--out-dir', help="default: 'pictures' in the config's work folder")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in train.py')
    return parser.parse_args()


def main() -> None:
    """Draw, and say where the pictures are."""
    args = parse()
    from mmengine.device import get_device
    from mmengine.registry import init_default_scope

    from mmkd_plugin.analysis import Gallery
    from mmkd_plugin.files.configs import read_config

    try:
        config, _ = read_config(args.config)
        config.merge_from_dict(args.cfg_options or {})
        init_default_scope(config.get('default_scope', 'mmengine'))
        work_dir = config.get('work_dir') or Path('work_dirs') / Path(args.config.rpartition('::')[2]).stem
        out_dir = Path(args.out_dir or Path(work_dir) / 'pictures')
        gallery = Gallery(
            config, args.checkpoint, out_dir, args.plain, args.tap, args.score_thr, args.channels, args.shared_scale,
            args.size, get_device(),
        )  # fmt: skip
        indices = gallery.choose(args.images, args.indices)
    except (FileNotFoundError, ModuleNotFoundError, TypeError, ValueError) as error:
        raise SystemExit(f'draw.py: {error}') from error
    if args.tap is None and not gallery.pairs:
        print("The config's losses read no feature maps; --tap TAP draws some.")
    for index in indices:
        print(f'image {index}: {", ".join(gallery.draw(index))}', flush=True)
    gallery.recorder.close()
    print(f'Pictures are in {out_dir}')


if __name__ == '__main__':
    main()
