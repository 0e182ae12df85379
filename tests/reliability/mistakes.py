"""Wrong inputs: each a clear error before the first step."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.processes import ROOT
from tests.reliability.attempt import TOLD, Attempt, attempt
from tests.reliability.case import Case
from tests.reliability.wrong_files import MAKERS, release
from tests.reliability.wrong_inputs import OTHERS_WORDS, TABLE, Wrong


def cases() -> Iterator[Case]:
    """One for each row of the table."""
    for wrong in TABLE:
        yield Case(f'{wrong.kind}: {wrong.what}', functools.partial(run, wrong))


def run(wrong: Wrong, folder: Path) -> dict[str, Any]:
    """Try one, and judge what was said."""
    path = MAKERS[wrong.made](folder / ('made.py' if wrong.made == 'config' else 'made')) if wrong.made else folder

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace('{path}', str(path))
        return {key: filled(inner) for key, inner in value.items()} if isinstance(value, dict) else value

    changed = {key: filled(value) for key, value in wrong.changed.items()}
    try:
        done = attempt(filled(wrong.config), folder / 'run', *map(filled, wrong.argv), changed=changed)
    finally:
        release()
    said = (
        (done.said + done.log if done.kind == 'SystemExit' else done.said)
        .replace(str(folder), '…')
        .replace(f'{ROOT}/', '')
    )
    return {'verdict': judge(wrong, done, said), 'stage': done.stage, 'error': done.kind, 'said': shortened(said)}


def judge(wrong: Wrong, done: Attempt, said: str) -> str:
    """``fine``, or what is not."""
    if done.error is None:
        return 'not refused'
    if done.updates:
        return f'late: after {done.updates} updates'
    if not isinstance(done.error, TOLD):
        others = f'{wrong.kind}: {wrong.what}' in OTHERS_WORDS
        return f'{done.kind}, as in plain training' if others else f'unclear: a {done.kind}'
    missing = [words for words in wrong.says if words not in said]
    return f'unclear: says nothing of {missing}' if missing else 'fine'


def shortened(said: str) -> str:
    """For the page: the first line and a half."""
    text = ' '.join(said.split())
    return text if len(text) <= 240 else f'{text[:237]}...'
