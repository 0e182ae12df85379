#!/usr/bin/env python
"""Try to break it: the reliability campaign, with figures.

Parts: mistakes (wrong inputs), teacher (a teacher that is silently wrong), hostile (files by strangers), fuzz (random
input), memory (2,000 steps of each method), kill (SIGKILL at random moments), processes (several processes, one that
dies, a disk that fills). What was found is kept in docs/results/reliability.json, case by case: a campaign that was
stopped goes on. `--write` makes the tables of docs/reliability.md from it, and runs nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ('mistakes', 'teacher', 'hostile', 'fuzz', 'memory', 'kill', 'processes')
PAGE = ROOT / 'docs/reliability.md'


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'{", ".join(PARTS)} (default: all)')
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'docs/results/reliability.json', metavar='FILE',
        help='what was found (default: docs/results/reliability.json)',
    )  # fmt: skip
    parser.add_argument('--moments', type=int, default=20, help='how often each kind of run is killed (default 20)')
    parser.add_argument('--again', action='store_true', help='run also what is there')
    parser.add_argument('--write', action='store_true', help='make the tables of docs/reliability.md, and run nothing')
    args = parser.parse_args(argv)
    if unknown := [part for part in args.parts if part not in PARTS]:
        parser.error(f'{unknown[0]!r} given, expected some of {", ".join(PARTS)}')
    if args.moments < 1:
        parser.error(f'--moments {args.moments} given, expected at least 1')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Run parts, or write the page."""
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # the campaign uses what the tests use
    from tests.reliability.record import Record

    record = Record(args.out)
    if args.write:
        from tests.reliability.page import write_page

        print(f'{PAGE.relative_to(ROOT)}: ' + ('written' if write_page(PAGE, record) else 'says it already'))
        return
    import torch

    from tests.reliability.campaign import campaign

    torch.set_num_threads(1)  # runs that are compared bit for bit need a fixed number
    bad = campaign(args.parts or PARTS, record, args.moments, args.again)
    print('all is fine' if not bad else 'not fine:\n  ' + '\n  '.join(bad))
    raise SystemExit(bool(bad))


if __name__ == '__main__':
    main()
