"""The page's tables, from what was found."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmkd_plugin.files.atomic import write_text
from tests.reliability.record import Record

Rows = dict[str, dict[str, Any]]


def write_page(page: Path, record: Record, write: bool = True) -> bool:
    """Put the tables of all parts between their marks, ``<!-- reliability: PART -->`` and ``<!-- end PART -->``.

    Returns:
        Whether the page said something else.

    Raises:
        ValueError: If a part has no marks.
    """
    text = new = page.read_text()
    for part, table in TABLES.items():
        begin, end = f'<!-- reliability: {part} -->\n', f'<!-- end {part} -->'
        before, found, rest = new.partition(begin)
        if not found or end not in rest:
            raise ValueError(f'{page} has no {begin.strip()} with an {end} behind it')
        told = _part(record, part, table)
        new = f'{before}{begin}\n{told}\n\n{end}{rest.partition(end)[2]}'
    if write and new != text:
        write_text(page, new)
    return new != text


def _part(record: Record, part: str, table: Callable[[Rows], str]) -> str:
    """What a part found."""
    rows = record.rows(part)
    if not rows:
        return 'Not run yet.'
    about = record.found[part]
    dates = ' to '.join(dict.fromkeys((about['dates'][0], about['dates'][-1])))
    fine = sum(row['verdict'] == 'fine' for row in rows.values())
    return f'{dates}, {about["with"]}: **{fine} of {len(rows)}** as they should be.\n\n{table(rows)}'


def _mistakes(rows: Rows) -> str:
    return _table(['input', 'where', 'error', 'what is said'], [
        [name, _where(row), f'`{row["error"]}`' if row['error'] else '–', _code(row['said'])]
        for name, row in rows.items()
    ])  # fmt: skip


def _teacher(rows: Rows) -> str:
    words = {'accuracy': 'its accuracy in the log', 'told': 'told in the log'}
    return _table(['what is wrong', 'seen by', 'how'], [
        [name, f'{words.get(row["found"], row["found"])}{_unless_fine(row)}', row['how']] for name, row in rows.items()
    ])  # fmt: skip


def _hostile(rows: Rows) -> str:
    return _table(['file', 'what became of it', 'what is said'], [
        [name, row['error'] + _unless_fine(row), _code(row['said'])] for name, row in rows.items()
    ])  # fmt: skip


def _fuzz(rows: Rows) -> str:
    return _table(['what reads it', 'taken', 'told', 'found'], [
        [name, row['taken'], row['told'], 'nothing' if row['verdict'] == 'fine' else row['verdict']]
        for name, row in rows.items()
    ])  # fmt: skip


def _memory(rows: Rows) -> str:
    columns = {'memory': 'MiB', 'memory_grown': 'more MiB', 'tensors': 'tensors', 'tensors_grown': 'more tensors',
               'files_grown': 'more files', 'threads_grown': 'more threads'}  # fmt: skip
    return _table(['config', *columns.values(), ''], [
        [f'`{name}`', *(row.get(key, '–') for key in columns), '' if row['verdict'] == 'fine' else row['verdict']]
        for name, row in rows.items()
    ])  # fmt: skip


def _kill(rows: Rows) -> str:
    """By kind of run."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, row in rows.items():
        kinds.setdefault(name.rpartition(', ')[0], []).append(row)
    return _table(['run', 'killed', 'before a checkpoint', 'resumed equal', 'broken files', 'unfinished files left'], [
        [name, len(own), sum(not row.get('epoch') for row in own), sum(row['verdict'] == 'fine' for row in own),
         sum('broken files' in row['verdict'] for row in own), sum(row.get('left', 0) for row in own)]
        for name, own in kinds.items()
    ])  # fmt: skip


def _processes(rows: Rows) -> str:
    return _table(['what happens', 'what was found'], [
        [name, row.get('found', '') if row['verdict'] == 'fine' else row['verdict']] for name, row in rows.items()
    ])  # fmt: skip


TABLES: dict[str, Callable[[Rows], str]] = {
    'mistakes': _mistakes, 'teacher': _teacher, 'hostile': _hostile, 'fuzz': _fuzz, 'memory': _memory, 'kill': _kill,
    'processes': _processes,
}  # fmt: skip


def _where(row: dict[str, Any]) -> str:
    return row['stage'] + _unless_fine(row)


def _unless_fine(row: dict[str, Any]) -> str:
    return '' if row['verdict'] == 'fine' else f' (**{row["verdict"]}**)'


def _code(text: str) -> str:
    """As code, which Markdown leaves as it is."""
    return f'`` {text} ``'.replace('|', '\\|') if text else '–'


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ['---'] * len(head), *([str(cell) for cell in row] for row in rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
