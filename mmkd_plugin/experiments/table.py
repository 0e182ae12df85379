"""What came out of a comparison: a row for each config, with what can be said of its gain over the plain student."""

import csv
import dataclasses
import io
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import write_text
from .runs import Result, Run

#: What evaluators log first, where they log several metrics.
USUAL = ('accuracy/top1', 'coco/bbox_mAP', 'pascal_voc/mAP')
#: Metrics that mmdet logs between 0 and 1; they are shown in %, as mmpretrain logs its own.
FRACTIONS = ('coco/', 'lvis/', 'pascal_voc/')

ABOVE, BELOW, WITHIN, UNKNOWN = 'above', 'below', 'within its error', 'no error known'


def verdict(gain: float, error: float | None) -> str:
    """Whether a gain is more than its error.

    Args:
        gain: Mean minus the plain student's mean.
        error: The standard error of that difference; None where one of the two has a single seed.

    Returns:
        ``above`` or ``below`` if the gain is more than two standard errors from 0, else ``within its error``.

    Example:
        >>> verdict(2.0, 0.9), verdict(-2.0, 0.9), verdict(2.0, 1.0), verdict(2.0, None)
        ('above', 'below', 'within its error', 'no error known')
    """
    if error is None:
        return UNKNOWN
    if abs(gain) <= 2 * error:
        return WITHIN
    return ABOVE if gain > 0 else BELOW


def standard_error(values: Sequence[float], plain: Sequence[float]) -> float | None:
    """Of the difference of two means, without assuming equal spread (Welch); None if one has fewer than two values.

    The seeds do not make pairs: a loss with learnable parts draws random numbers of its own, and batches differ from
    then on, so that runs of one seed have no more in common than others.

    Example:
        >>> standard_error([1.0, 3.0], [4.0, 8.0]), standard_error([1.0], [4.0, 8.0])
        (2.23606797749979, None)
    """
    if min(len(values), len(plain)) < 2:
        return None
    return float((statistics.variance(values) / len(values) + statistics.variance(plain) / len(plain)) ** 0.5)


@dataclasses.dataclass
class Row:
    """A line of the table.

    Attributes:
        name: Of the config, or of a teacher.
        values: The metric, of each finished run.
        runs: How many were asked for; 0 for a teacher.
        failed: How many of these failed.
        gain: Mean minus the plain student's, where both have values.
        error: The gain's standard error.
        parameters: The student's (or teacher's).
        beside: Trained beside the student's.
        step_time: Seconds of an iteration, the median of the runs.
        relative_time: That as a part of the plain student's.
        memory: Peak in MiB, the most of all runs.
    """

    name: str
    values: list[float]
    runs: int = 0
    failed: int = 0
    gain: float | None = None
    error: float | None = None
    parameters: int | None = None
    beside: int | None = None
    step_time: float | None = None
    relative_time: float | None = None
    memory: float | None = None

    @property
    def mean(self) -> float | None:
        """Of the values; None without any."""
        return statistics.mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation of the values; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def verdict(self) -> str:
        """As :func:`verdict`; empty without a gain."""
        return '' if self.gain is None else verdict(self.gain, self.error)

    @property
    def seeds(self) -> str:
        """How many runs the values are of, and what became of the others."""
        if not self.runs:
            return ''
        text = str(len(self.values)) if len(self.values) == self.runs else f'{len(self.values)} of {self.runs}'
        return text + (f', failed {self.failed} of {self.runs}' if self.failed else '')


class Comparison:
    """Runs as rows, and as files.

    Args:
        runs: All of them, finished or not.
        plain: Name of the plain student's entry.
        metric: As it is logged; None: the only one, or the first of :data:`USUAL`.

    Raises:
        ValueError: If no finished run logged the metric, or none is given and several were logged.
    """

    def __init__(self, runs: Sequence[Run], plain: str, metric: str | None = None) -> None:
        self.runs = runs
        self.plain_name = plain
        self.metric = find_metric(runs, plain, metric)
        self._scale = 100.0 if self.metric.startswith(FRACTIONS) else 1.0
        #: With its unit.
        self.shown = self.metric + (' (%)' if self.metric.startswith((*FRACTIONS, 'accuracy/')) else '')
        names = list(dict.fromkeys(run.entry.name for run in runs))
        rows = {name: self._row(name) for name in names}
        #: The plain student's.
        self.plain = rows[plain]
        for row in rows.values():
            if row is not self.plain:
                self._compare(row)
        #: The teachers', the plain student's, then all others in their order.
        self.rows = [*self._teachers(), self.plain, *(row for row in rows.values() if row is not self.plain)]

    @property
    def methods(self) -> list[Row]:
        """What is compared with the plain student."""
        return self.rows[self.rows.index(self.plain) + 1 :]

    @property
    def seeds(self) -> int:
        """How many were asked for."""
        return self.plain.runs

    def _of(self, name: str) -> list[Run]:
        return [run for run in self.runs if run.entry.name == name]

    def _row(self, name: str) -> Row:
        runs = self._of(name)
        results = [run.result for run in runs if run.result]
        missing = sum(self.metric not in result.metrics for result in results)
        row = Row(name, [self._scale * r.metrics[self.metric] for r in results if self.metric in r.metrics], len(runs))
        row.failed = sum(run.failure is not None for run in runs) + missing
        if times := [result.step_time for result in results if result.step_time]:
            row.step_time = statistics.median(times)
        row.memory = max((result.memory for result in results), default=None)
        if counted := next((result.parameters for result in results if result.parameters), None):
            row.parameters, row.beside = counted['student'], counted['beside']
        return row

    def _compare(self, row: Row) -> None:
        if row.mean is not None and self.plain.mean is not None:
            row.gain = row.mean - self.plain.mean
            row.error = standard_error(row.values, self.plain.values)
        if row.step_time and self.plain.step_time:
            row.relative_time = row.step_time / self.plain.step_time

    def _teachers(self) -> list[Row]:
        """A row for each figure that a teacher reaches; named by whom it teaches, if there are several.

        What reaches another in each run of a config, such as a peer, learns in these: it has one row of all runs.
        """
        reached: dict[tuple[str, str], list[tuple[Run, float]]] = {}
        for run in self.runs:
            for key, value in run.result.metrics.items() if run.result else ():
                if key.endswith(f'/{self.metric}'):
                    teacher = key.removesuffix(f'/{self.metric}')
                    reached.setdefault((teacher, run.entry.name), []).append((run, round(self._scale * value, 4)))
        found: dict[tuple[str, tuple[float, ...]], list[Run]] = {}
        for (teacher, _), told in reached.items():
            values = tuple(value for _, value in told)
            alike = len(set(values)) == 1
            found.setdefault((teacher, values[:1] if alike else values), []).extend(run for run, _ in told)
        rows = []
        for (teacher, values), runs in found.items():
            pupils = list(dict.fromkeys(run.entry.name for run in runs))
            several = sum(other == teacher for other, _ in found) > 1
            who = pupils[0] + (f' and {len(pupils) - 1} more' if len(pupils) > 1 else '')
            row = Row(f'{teacher} of {who}' if several else teacher, [*values], len(values) if len(values) > 1 else 0)
            row.parameters = next((r.parameters.get(teacher) for r in _results(runs) if r.parameters), None)
            rows.append(row)
        return rows

    @property
    def title(self) -> str:
        """Metric, epoch and seeds."""
        return f'{self.shown}, last epoch (not the best), {self.seeds} seed{"s" if self.seeds > 1 else ""}'

    def notes(self) -> list[str]:
        """How the figures are to be read."""
        results = _results(self.runs)
        jobs = sorted({result.jobs for result in results})
        threads = sorted({result.threads for result in results})
        beside = (
            f'beside other runs (--jobs {" and ".join(map(str, jobs))}), so they are rough'
            if jobs != [1] else 'one run at a time'
        )  # fmt: skip
        on_gpu = {result.on_gpu for result in results}
        memory = {
            True: 'allocated on the GPU', False: 'resident of the process on the CPU',
        }  # fmt: skip
        return [
            f'Value: mean ± standard deviation. Gain over {self.plain_name}: difference of means ± its standard error '
            '(Welch, unpaired).',
            'Verdict: above or below if the gain is more than 2 standard errors from 0, else within its error. Of '
            'methods without any effect, about one in twelve is called above or below at 5 seeds, one in eight at 3 '
            'and one in five at 2.',
            f"Step time: median of the log's time per iteration without the first interval, relative to "
            f'{self.plain_name}; measured {beside}, {" or ".join(map(str, threads))} CPU thread(s) each. '
            f'Memory: peak, {" or ".join(memory[where] for where in sorted(on_gpu))}.',
        ]

    def markdown(self) -> str:
        """The table with its title and notes."""
        header = [
            'model', self.shown, 'seeds', 'gain', 'verdict', 'parameters', 'trained beside', 'step time',
            'peak memory (MiB)',
        ]  # fmt: skip
        lines = [f'{self.title}:', '', _line(header), _line(['---'] * len(header))]
        for row in self.rows:
            name = f'{row.name} (plain)' if row is self.plain and 'plain' not in row.name else row.name
            cells = [
                name.replace('|', r'\|'),
                _pair(row.mean, row.std, '.2f'),
                row.seeds,
                _pair(row.gain, row.error, '+.2f'),
                row.verdict,
                _cell(row.parameters, ','),
                _cell(row.beside, ','),
                _cell(1.0 if row is self.plain and row.step_time else row.relative_time, '.2f'),
                _cell(row.memory, ',.0f'),
            ]
            lines.append(_line(cells))
        lines += ['', *(f'- {note}' for note in self.notes())]
        failed = [run for run in self.runs if run.failure is not None]
        lines += [f'- Failed: {run}: {run.failure} ({run.log})' for run in failed]
        return '\n'.join(lines) + '\n'

    def csv(self) -> str:
        """The same figures as numbers, without rounding."""
        columns: dict[str, Callable[[Row], Any]] = {
            'model': lambda row: row.name,
            'metric': lambda _: self.metric,
            'mean': lambda row: row.mean,
            'std': lambda row: row.std,
            'seeds': lambda row: len(row.values) if row.runs else None,
            'failed': lambda row: row.failed if row.runs else None,
            'gain': lambda row: row.gain,
            'gain_standard_error': lambda row: row.error,
            'verdict': lambda row: row.verdict,
            'parameters': lambda row: row.parameters,
            'trained_beside': lambda row: row.beside,
            'step_seconds': lambda row: row.step_time,
            'step_time_relative': lambda row: row.relative_time,
            'peak_memory_mib': lambda row: row.memory,
        }
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(columns)
        writer.writerows([column(row) for column in columns.values()] for row in self.rows)
        return text.getvalue()

    def values(self) -> dict[str, Any]:
        """What every run gave, by name and seed."""
        runs: dict[str, Any] = {}
        for run in self.runs:
            result = dataclasses.asdict(run.result) if run.result else None
            told = {'result': result, 'failure': run.failure}
            one = runs.setdefault(run.entry.name, {'config': run.entry.path, 'seeds': {}})
            one['seeds'][str(run.seed)] = told
        return {'metric': self.metric, 'scale': self._scale, 'plain': self.plain_name, 'runs': runs}

    def write(self, folder: Path) -> None:
        """Write ``table.md``, ``table.csv`` and ``values.json``."""
        write_text(folder / 'table.md', self.markdown())
        write_text(folder / 'table.csv', self.csv())
        write_text(folder / 'values.json', json.dumps(self.values(), indent=1))


def _results(runs: Sequence[Run]) -> list[Result]:
    return [run.result for run in runs if run.result]


def find_metric(runs: Sequence[Run], plain: str, metric: str | None = None) -> str:
    """The metric to compare, see :class:`Comparison`."""
    results = _results([run for run in runs if run.entry.name == plain]) or _results(runs)
    if not results:
        raise ValueError('no run is finished yet')
    logged = list(dict.fromkeys(key for result in results for key in result.metrics))
    own = [key for key in logged if not any(key.endswith(f'/{other}') for other in logged)]
    if metric is None:
        found = own if len(own) == 1 else [key for key in USUAL if key in own]
        if not found:
            raise ValueError(f'several metrics were logged, name one by --metric: {", ".join(own)}')
        return found[0]
    if metric not in logged:
        raise ValueError(f"--metric '{metric}' was not logged, only {', '.join(logged)}")
    return metric


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _cell(value: float | None, form: str) -> str:
    return '' if value is None else format(value, form)


def _pair(value: float | None, spread: float | None, form: str) -> str:
    return _cell(value, form) + ('' if spread is None else f' ± {spread:.2f}')
