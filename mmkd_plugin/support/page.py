"""The table for users, in a page between two marks."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import write_text
from .choice import family_of
from .columns import COLUMNS
from .record import Record

_BLOCK = re.compile(r'(<!-- support_matrix -->\n).*(<!-- end support_matrix -->)', re.DOTALL)
_LOSS = re.compile(r"losses\['loss_\w+'\] \((\w+)\)")
_CELLS = {'works': 'yes', 'absent': '–'}


def write_page(page: Path, record: Record, write: bool = True) -> bool:
    """Put the table into a page.

    Args:
        page: With the marks ``<!-- support_matrix -->`` and ``<!-- end support_matrix -->``.
        record: What was found.
        write: False only looks.

    Returns:
        Whether the page said something else.

    Raises:
        ValueError: If the page has no such marks.
    """
    text = page.read_text()
    if not _BLOCK.search(text):
        raise ValueError(
            f'{page} has no <!-- support_matrix --> with an <!-- end support_matrix --> behind it, where the table goes'
        )
    new = _BLOCK.sub(lambda match: f'{match[1]}\n{tables(record)}\n\n{match[2]}', text)
    if write and new != text:
        write_text(page, new)
    return new != text


def tables(record: Record) -> str:
    """What works, what was said where something does not, and what was not run; as Markdown."""
    tried = {config: entry for config, entry in sorted(record.found.items()) if 'columns' in entry}
    left = {config: entry['not_run'] for config, entry in sorted(record.found.items()) if 'not_run' in entry}
    notes: dict[str, int] = {}
    rows = [[family_of(config), _name(config), *_cells(entry['columns'], notes)] for config, entry in tried.items()]
    parts = [_about(record, tried), _table(['family', 'config', *COLUMNS.values()], rows)]
    if notes:
        parts += ['### What was said', '\n'.join(f'{number}. {_escaped(text)}' for text, number in notes.items())]
    if left:
        reasons = [[family_of(config), _name(config), _escaped(why)] for config, why in left.items()]
        parts += ['### Not run', _table(['family', 'config', 'why'], reasons)]
    return '\n\n'.join(parts)


def _about(record: Record, tried: dict[str, dict[str, Any]]) -> str:
    packages = ' and '.join(sorted({entry['with'] for entry in record.found.values()}))
    dates = sorted({entry['date'] for entry in record.found.values()})
    when = ' to '.join(dict.fromkeys((dates[0], dates[-1]))) if dates else 'never'
    counts = []
    for name, title in COLUMNS.items():
        verdicts = [entry['columns'][name][0] for entry in tried.values()]
        counts.append(f'{title} {verdicts.count("works")} of {len(verdicts) - verdicts.count("absent")}')
    families = len(set(map(family_of, tried)))
    return (
        f'Tried on {when} with {packages}: {len(tried)} configs of {families} families. What works, of those that have '
        f'it: {", ".join(counts)}.'
    )


def _cells(columns: dict[str, Any], notes: dict[str, int]) -> list[str]:
    cells = []
    for name in COLUMNS:
        verdict, said = columns[name]
        if verdict not in _CELLS:
            number = notes.setdefault(in_common(said), len(notes) + 1)
            cells.append(f'{"no" if verdict == "refused" else "fails"} ({number})')
        else:
            cells.append(_CELLS[verdict])
    return cells


def in_common(said: str) -> str:
    """What was said, without the loss's name and the number of positives, which chance tells.

    Example:
        >>> in_common("losses['loss_dense'] (DenseKDLoss) reads ((5, 80), torch.float32)")
        '… (DenseKDLoss) reads ((…, 80), torch.float32)'
    """
    return re.sub(r'\(\(\d+, ', '((…, ', _LOSS.sub(r'… (\1)', said))


def _name(config: str) -> str:
    return '`' + config.partition('/')[2].removesuffix('.py') + '`'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _escaped(text: str) -> str:
    """As Markdown shows it."""
    return re.sub(r'([\[\]*<|`])', r'\\\1', text)
