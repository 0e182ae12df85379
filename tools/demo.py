#!/usr/bin/env python
"""Train a plain student on embedded data, distil it with several methods, and print one table.

`--data digits` classifies (top-1 accuracy in %), `--data digit_scenes` detects (mAP at IoU 0.5, in %). It is
`tools/compare.py` with some of our configs: called again, it goes on where it was, and trains nothing twice.
"""

import argparse
from pathlib import Path

import compare

CONFIGS = compare.ROOT / 'configs'
PLAIN = 'plain student'
DEMOS = {
    'digits': {PLAIN: 'digits/resnet_student.py', 'KD': 'kd_resnet.py', 'DKD': 'dkd_resnet.py'},
    'digit_scenes': {
        PLAIN: 'digit_scenes/faster_rcnn_student.py',
        'DKD': 'dkd_faster_rcnn.py',
        'NST': 'digit_scenes/nst_faster_rcnn.py',
        'ReviewKD': 'digit_scenes/reviewkd_faster_rcnn.py',
        'DKD + ReviewKD': 'digit_scenes/dkd_reviewkd_faster_rcnn.py',
    },
}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', choices=DEMOS, default='digits', help='default digits')
    parser.add_argument('--seeds', type=int, default=1, help='runs of each row (default 1)')
    parser.add_argument('--work-dir', type=Path, help='default work_dirs/demo (digits), work_dirs/demo_digit_scenes')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='passed on to tools/train.py')
    args = parser.parse_args()
    configs = {name: str(CONFIGS / path) for name, path in DEMOS[args.data].items()}
    work_dir = args.work_dir or Path('work_dirs') / ('demo' if args.data == 'digits' else f'demo_{args.data}')
    return compare.main([
        *configs.values(), '--plain', configs[PLAIN], '--name', *(f'{path}={name}' for name, path in configs.items()),
        '--seeds', str(args.seeds), '--work-dir', str(work_dir),
        *(['--cfg-options', *args.cfg_options] if args.cfg_options else []),
    ])  # fmt: skip


if __name__ == '__main__':
    raise SystemExit(main())
