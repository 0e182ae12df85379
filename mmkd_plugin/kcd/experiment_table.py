"""What the experiment with KCD's values showed: a table for each setting, and a picture."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..experiments.runs import Run
from ..experiments.table import standard_error, verdict
from .experiment import FRESH, PLAIN, SETTINGS, VALUES, Case, cases

TITLES = {
    'clean': 'clean',
    'noise': '10 % of the labels wrong',
    'duplicates': '700 of 1,000 from 100 digits, near-duplicates',
}
_COLOURS = dict(zip((*VALUES, 'random', PLAIN), (
    '#4477aa', '#66ccee', '#228833', '#aa3377', '#ccbb44', '#888888', '#000000'), strict=True))  # fmt: skip
_MARKERS = {'': 'o', 'aged': 's', 'pass': '^', 'mixed': 'D', 'fresh': 'o', 'fixed': 'x'}


class Row(NamedTuple):
    """What came of a case.

    Attributes:
        case: Which.
        values: Top-1 in %, of each finished run.
        returned: Of what was dropped before a round, the part that the round took back; None where there is none.
    """

    case: Case
    values: list[float]
    returned: float | None

    @property
    def mean(self) -> float:
        """Of the values."""
        return statistics.mean(self.values)

    @property
    def error(self) -> float:
        """Standard error of the mean; 0 for a single value."""
        return statistics.stdev(self.values) / len(self.values) ** 0.5 if len(self.values) > 1 else 0.0


def read_rows(by_config: Mapping[str, Case], runs: Sequence[Run]) -> dict[tuple[str, float], list[Row]]:
    """By setting, the cases of which a run is finished.

    Args:
        by_config: Cases by the name of their config.
        runs: All runs.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.result:
            found.setdefault(run.entry.name, []).append(run)
    rows = {
        name: Row(case, [run.result.metrics['accuracy/top1'] for run in found[name] if run.result], _back(found[name]))
        for name, case in by_config.items()
        if name in found
    }
    epochs = max((case.epochs for case in by_config.values()), default=0)
    return {setting: [rows[case.name] for case in cases(*setting, epochs) if case.name in rows] for setting in SETTINGS}


def _back(runs: Sequence[Run]) -> float | None:
    """The part of the dropped that returned, over all rounds of all runs."""
    returned = dropped = 0
    for run in runs:
        file = max(run.folder.glob('*/vis_data/scalars.json'), default=None)
        for line in file.read_text().splitlines() if file else ():
            if '"kcd/returned"' in line:
                record = json.loads(line)
                returned += record['kcd/returned']
                dropped += record['kcd/dropped_before']
    return returned / dropped if dropped else None


def markdown(rows: Mapping[tuple[str, float], Sequence[Row]]) -> str:
    """A table for each setting."""
    lines = []
    for (data, ratio), some in rows.items():
        if not some:
            continue
        chance = next((row for row in some if row.case.method == FRESH), None)
        as_long = cases(data, ratio, max(row.case.epochs for row in some))[1]
        plain = next((row for row in some if row.case == as_long), None)
        lines += [
            f'### {TITLES[data].capitalize()}; {100 * ratio:.0f} % are kept in the end',
            '',
            '| samples by | passes | top-1 (%) | seeds | over chance, fresh | over all data, same cost | returned |',
            '| --- ' * 7 + '|',
        ]
        for row in some:
            back = '' if row.returned is None else f'{100 * row.returned:.0f} %'
            cells = [_name(row), f'{row.case.passes:,}', _spread(row), str(len(row.values))]
            lines.append(f'| {" | ".join([*cells, _gain(row, chance), _gain(row, plain), back])} |')
        lines.append('')
    return '\n'.join(lines)


def _name(row: Row) -> str:
    return f'{row.case.method}, {row.case.epochs} epochs' if row.case.hook is None else row.case.method


def _spread(row: Row) -> str:
    return f'{row.mean:.2f}' + (f' ± {statistics.stdev(row.values):.2f}' if len(row.values) > 1 else '')


def _gain(row: Row, other: Row | None) -> str:
    """The difference of means, its standard error, and whether it is more than two of them."""
    if other is None or row is other:
        return ''
    gain, error = row.mean - other.mean, standard_error(row.values, other.values)
    if error is None:
        return f'{gain:+.2f}'
    found = verdict(gain, error)
    return f'{gain:+.2f} ± {error:.2f}' + ('' if found.startswith('within') else f', {found}')


def values(rows: Mapping[tuple[str, float], Sequence[Row]]) -> str:
    """All figures as JSON, each run's accuracy among them."""
    told: list[dict[str, Any]] = [
        dict(data=data, ratio=ratio, samples_by=_name(row), passes=row.case.passes, top1=row.values,
             returned=row.returned)
        for (data, ratio), some in rows.items() for row in some
    ]  # fmt: skip
    return json.dumps(told, indent=1) + '\n'


def draw(rows: Mapping[tuple[str, float], Sequence[Row]]) -> Figure:
    """Accuracy against passes, a panel for each setting; bars are two standard errors to either side."""
    figure = Figure(figsize=(13, 8.5), layout='constrained')
    axes = figure.subplots(2, 2).ravel()
    for place, ((data, ratio), some) in zip(axes, rows.items(), strict=True):
        _draw(place, some)
        place.set_title(f'{TITLES[data]}; {100 * ratio:.0f} % kept in the end', fontsize='medium')
    figure.supxlabel('images that the student was run on (cases of equal cost side by side)')
    figure.supylabel('top-1 (%), mean of the seeds; bars: 2 standard errors')
    handles = {
        label: handle for place in axes for handle, label in zip(*place.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc='outside right center', fontsize='small')
    return figure


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    ordered = sorted(rows, key=lambda row: row.case.passes)
    groups: dict[int, list[float]] = {}
    for number, row in enumerate(ordered):
        place = number + 1.5 * len(groups) if row.case.passes in groups else number + 1.5 * (len(groups) + 1)
        groups.setdefault(row.case.passes, []).append(place)
        value, _, how = row.case.method.partition(', ')
        axes.errorbar(
            place, row.mean, yerr=2 * row.error, capsize=2, linestyle='none', color=_COLOURS[value],
            marker='*' if row.case.hook is None else _MARKERS[how], label=row.case.method,
        )  # fmt: skip
    axes.set_xticks([statistics.mean(places) for places in groups.values()], [f'{passes:,}' for passes in groups])
    axes.grid(axis='y', color='#dddddd')
    axes.set_axisbelow(True)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
