#!/usr/bin/env python
"""Write the slim, plain student in a checkpoint: no optimizer, no run state, no `distill.` keys."""

import argparse
import hashlib
from pathlib import Path

from mmkd_plugin.checkpoint import read_checkpoint, state_dict_of
from mmkd_plugin.fileio import save_checkpoint


def publish(source: str, target: str) -> Path:
    """Write ``target`` with the first 8 digits of its SHA-256 in its name, as mmdet's tool does.

    Args:
        source: A checkpoint of mmengine. With EMAHook its `state_dict` holds the averaged weights.
        target: Such as ``student.pth``; becomes ``student-1a2b3c4d.pth``.

    Returns:
        Where it was written.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    checkpoint = read_checkpoint(source)
    meta = {k: v for k, v in checkpoint.get('meta', {}).items() if k == 'dataset_meta'}
    path = Path(target).with_suffix('.pth')
    save_checkpoint({'meta': meta, 'state_dict': state_dict_of(checkpoint)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(path.with_name(f'{path.stem}-{digest}.pth'))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint of a training run')
    parser.add_argument('target', help='where to write; a hash is added to the name')
    args = parser.parse_args()
    print(f'The published model is {publish(args.source, args.target)}')


if __name__ == '__main__':
    main()
