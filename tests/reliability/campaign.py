"""The campaign: its parts, one case after the other."""

import importlib
import shutil
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DefaultScope

from tests.processes import no_layout
from tests.reliability.case import Case
from tests.reliability.record import Record

#: By name, the module of each part.
PARTS = {
    'mistakes': 'mistakes', 'teacher': 'teacher', 'hostile': 'hostile', 'fuzz': 'fuzz', 'memory': 'memory',
    'kill': 'kill', 'processes': 'group',
}  # fmt: skip


def campaign(parts: Sequence[str], record: Record, moments: int = 20, again: bool = False) -> list[str]:
    """Run parts and keep what they found.

    Args:
        parts: Of :data:`PARTS`.
        record: Where it is kept; cases that are there are not run again.
        moments: How often a run of each kind is killed.
        again: Forget what is there of these parts.

    Returns:
        The cases that are not fine, in words.
    """
    no_layout(setattr)
    bad = []
    for part in parts:
        if again:
            record.forget(part)
        module = importlib.import_module(f'tests.reliability.{PARTS[part]}')
        cases = list(module.cases(moments) if part == 'kill' else module.cases())
        done = set(record.rows(part))
        for number, case in enumerate(cases, 1):
            if case.name not in done:
                row = tried(case)
                record.add(part, case.name, row)
                print(f'{part} {number} of {len(cases)}: {case.name}: {row["verdict"]} ({row["wall"]} s)', flush=True)
            if (verdict := record.rows(part)[case.name]['verdict']) != 'fine':
                bad.append(f'{part}: {case.name}: {verdict}')
    return bad


def tried(case: Case) -> dict[str, Any]:
    """What a case found in a folder of its own; one that breaks is a finding, too."""
    folder = Path(tempfile.mkdtemp(prefix='reliability-'))
    begun = time.monotonic()
    try:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            row = case.run(folder)
    except Exception as error:
        traceback.print_exc()
        row = {'verdict': f'broken: {error!r}'[:300]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {**row, 'wall': round(time.monotonic() - begun, 1)}
