"""Configs of which the later ones learn from what the earlier ones leave."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from .entries import Entry, read_entries
from .runs import Run, flatten
from .table import Comparison, Row

#: Where `tools/train.py` leaves the checkpoint of a config, and where configs therefore look for it.
_LEFT = re.compile(r'(?:\./)?work_dirs/(?P<link>[^/]+)/(?P<file>[^/]+)')


class Link(NamedTuple):
    """A config of a chain.

    Attributes:
        run: Its run.
        options: What sends it to the folders of the links before it, as on the command line of `tools/train.py`.
        needs: The links before it whose files it names.
    """

    run: Run
    options: list[str]
    needs: list[Run]


def forge(
    paths: Sequence[str], seed: int = 0, root: Path = Path('work_dirs'), options: Mapping[str, Any] | None = None
) -> list[Link]:
    """The links of a chain.

    A config names a checkpoint of another as `tools/train.py` leaves it: ``work_dirs/NAME/epoch_40.pth``. Where NAME is
    an earlier link, that is looked for in ``root``, and where it is the last one of that link's config, the last one is
    meant, whatever the options make of its length.

    Args:
        paths: Of the configs, in the order in which they are trained.
        seed: Of all of them.
        root: Where each has a folder, called as its file.
        options: Merged into all of them.

    Raises:
        FileNotFoundError: If a config does not exist.
        ValueError: If two are called alike, one names what a later one leaves, or there is a run that does not fit.
    """
    names = [Path(path).stem for path in paths]
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise ValueError(f"two configs are called '{twice}', and both would be trained in '{root / twice}': rename one")
    links: list[Link] = []
    lasts: dict[str, tuple[str, str]] = {}
    for name, plain, entry in zip(names, read_entries(paths), read_entries(paths, options=options), strict=True):
        changes, needs = {}, dict[str, Run]()
        for key, value in flatten(entry.config.to_dict()).items():
            found = _LEFT.fullmatch(value) if isinstance(value, str) else None
            if found is None or found['link'] not in names or found['link'] == name:
                continue
            if found['link'] not in lasts:
                raise ValueError(
                    f"{entry.path} has {key}='{value}', which is left by '{found['link']}', which comes later: change "
                    'the order'
                )
            needs[found['link']] = links[names.index(found['link'])].run
            usual, last = lasts[found['link']]
            file = last if found['file'] == usual else found['file']
            meant = str(root / found['link'] / file)
            if Path(value) != Path(meant):
                changes[key] = _passed_on(key, meant)
        entry.config.merge_from_dict(changes)
        run = Run(Entry(name, entry.path, entry.config), seed, root / name)
        links.append(Link(run, [f'{key}={path}' for key, path in changes.items()], list(needs.values())))
        lasts[name] = _last(plain.config), _last(entry.config)
        _check_fresh(links[-1])
    return links


def _last(config: Config) -> str:
    """The checkpoint that a whole run leaves."""
    train = config.get('train_cfg') or {}
    return f'iter_{train["max_iters"]}.pth' if train.get('max_iters') else f'epoch_{train.get("max_epochs")}.pth'


def _passed_on(key: str, path: str) -> str:
    """The path, if mmengine's options can set a key to it.

    Raises:
        ValueError: If not.
    """
    if key.rpartition('.')[2].isdigit():
        raise ValueError(
            f"{key} should be '{path}', and --cfg-options cannot change a word in a list: keep it in a dictionary, or "
            'train in work_dirs without changing lengths'
        )
    if wrong := re.search(r'[\s,()\[\]\'"=]', path):
        raise ValueError(f"'{path}' holds {wrong[0]!r}, which --cfg-options cannot pass on: take another folder")
    return path


def _check_fresh(link: Link) -> None:
    """Refuse what was trained with a teacher that is to be trained anew.

    Raises:
        ValueError: If so.
    """
    gone = [run for run in link.needs if run.result is None]
    if gone and (link.run.result or link.run.checkpoints()):
        raise ValueError(
            f"'{link.run.folder}' was trained with what {gone[0].entry.name} had left, which is not finished: remove "
            'that folder to train it anew'
        )


def link_table(links: Sequence[Link], metric: str | None = None) -> str:
    """A row for each link: what it reached at the end of its last epoch, and its parameters.

    Raises:
        ValueError: If none is finished, or nobody knows which metric is meant.
    """
    finished = [link.run for link in links if link.run.result]
    comparison = Comparison(finished, finished[-1].entry.name if finished else '', metric)
    rows = {row.name: row for row in comparison.rows}
    lines = [f'| model | {comparison.shown}, last epoch | parameters | trained beside | from |', '| --- ' * 5 + '|']
    for link in links:
        name = link.run.entry.name
        row = rows.get(name, Row(name, []))
        value = 'failed' if link.run.failure is not None else '' if row.mean is None else f'{row.mean:.2f}'
        counts = ['' if count is None else f'{count:,}' for count in (row.parameters, row.beside)]
        needs = ', '.join(need.entry.name for need in link.needs)
        lines.append(f'| {" | ".join([name, value, *counts, needs])} |')
    return '\n'.join(lines) + '\n'
