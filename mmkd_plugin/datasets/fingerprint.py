"""A digest of a data set: which samples, with which labels, in which order."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .indexed import find_owner


def fingerprint(dataset: Any, contents: bool = False) -> str:
    """A digest of all entries in order: the same data in another folder have the same.

    Of an entry count the labels, and the last two parts of its ``img_path`` below the data set's
    ``data_root``; the bytes of its ``img`` where there is no path.

    Args:
        dataset: mmengine's, or its wrappers of such.
        contents: Whether the bytes of an ``img`` that an entry holds count, too, where there is a path.
    """
    digest = hashlib.blake2b(digest_size=16)
    for index in range(len(dataset)):
        owner, place = find_owner(dataset, index)
        info = owner.get_data_info(place)
        path = info.get('img_path')
        if path:
            below = str(path).removeprefix(owner.data_root or '').replace('\\', '/').strip('/')
            image = '/'.join(below.rsplit('/', 2)[-2:]).encode(errors='surrogateescape')
        else:
            image = np.asarray(info.get('img', ())).tobytes()
        if path and contents and 'img' in info:
            image += np.asarray(info['img']).tobytes()
        # lengths keep entries apart
        digest.update(b'%d %b %b\n' % (len(image), image, _labels(info).encode()))
    return digest.hexdigest()


def _labels(info: Mapping[str, Any]) -> str:
    if 'instances' in info:
        return str([instance.get('bbox_label') for instance in info['instances']])
    label = info.get('gt_label')
    return str(label if isinstance(label, (int, type(None))) else np.asarray(label).tolist())
