"""The three hypotheses of the paper, each measure of student and baseline with its spread and a verdict."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .measures import Measured

HYPOTHESES = (
    'the student encodes more visual concepts of the foreground, and fewer of the background',
    'the student learns its concepts earlier, and more of them at the same time',
    'the student takes fewer detours: more of the concepts that it ever had are there at the end',
)
HOLDS, REVERSED, OPEN, ABSENT = 'holds', 'reversed', 'cannot be told', 'not measured'


class _Measure(NamedTuple):
    """One number of a run, as a mean over values of images."""

    name: str
    hypothesis: int
    larger: bool
    of_images: Callable[[Measured], Tensor | None]


_MEASURES = (
    _Measure('N_fg', 0, True, lambda m: m.foreground[-1].double()),
    _Measure('N_bg', 0, False, lambda m: m.background[-1].double()),
    _Measure('lambda', 0, True, lambda m: m.ratio[-1].double()),
    _Measure('D_mean', 1, False, lambda m: m.speed and m.speed.at),
    _Measure('D_var', 1, False, lambda m: m.speed and (m.speed.at - m.speed.mean).square()),
    _Measure('rho', 2, True, lambda m: m.stability),
)


@dataclass
class Row:
    """A measure.

    Attributes:
        name: N_fg, N_bg, lambda, D_mean, D_var or rho.
        hypothesis: Which it belongs to, from 0.
        larger: Whether the hypothesis says that the student's is larger.
        baseline: Its mean over images, of each run; for rho of each that ever had a concept.
        student: The same.
        teacher: The same, of each teacher; empty where it is not measured.
        gain: Mean of the student's less that of the baseline's; None if it was not measured.
        over_images: Its standard error over images, of which both have the same.
        over_seeds: Its standard error over runs; None if one of both has a single one.
        verdict: By the larger of the two errors, a difference of more than two of them.
    """

    name: str
    hypothesis: int
    larger: bool
    baseline: list[float]
    student: list[float]
    teacher: dict[str, float] = field(default_factory=dict)
    gain: float | None = None
    over_images: float | None = None
    over_seeds: float | None = None
    verdict: str = ABSENT


@dataclass
class Report:
    """What came out at one tap.

    Attributes:
        tap: Where.
        images: How many count.
        left_out: How many do not, by reason.
        rows: The measures.
        mean_entropy: Least and largest mean entropy of an image, over all that is compared; networks can be compared
            where it is the same for all.
        path: What kind of path the second hypothesis was measured with.
    """

    tap: str
    images: int
    left_out: dict[str, int]
    rows: list[Row]
    mean_entropy: tuple[float, float]
    path: str

    def verdict(self, hypothesis: int) -> str:
        """Of a hypothesis: ``holds`` if one of its measures says so and none the contrary, and so on."""
        told = {row.verdict for row in self.rows if row.hypothesis == hypothesis}
        if told <= {ABSENT}:
            return ABSENT
        if HOLDS in told and REVERSED not in told:
            return HOLDS if told <= {HOLDS} else 'holds in part'
        if REVERSED in told and HOLDS not in told:
            return 'does not hold'
        return 'mixed' if REVERSED in told else OPEN

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        verdicts = {text: self.verdict(number) for number, text in enumerate(HYPOTHESES)}
        return {**asdict(self), 'hypotheses': verdicts}

    def remark(self) -> str:
        """What was compared, in words."""
        left = '; '.join(f'{count} left out because {why}' for why, count in self.left_out.items() if count)
        runs = max(len(side) for row in self.rows for side in (row.baseline, row.student))
        return (
            f'{self.images} images{f" ({left})" if left else ""}, up to {runs} run(s) of each, ± their standard '
            f'deviation. The difference has its standard error over images and over seeds, '
            f'and a verdict needs more than two of the larger one. Mean entropy of an image '
            f'{self.mean_entropy[0]:.3f} to {self.mean_entropy[1]:.3f} nats. {self.path}{self._without_rho()}'
        )

    def _without_rho(self) -> str:
        counts = {row.name: len(row.baseline) + len(row.student) for row in self.rows}
        missing = counts['N_fg'] - counts['rho']
        measured = missing and counts['D_mean']
        return f' {missing} run(s) never had a concept in the foreground, and so no rho.' if measured else ''

    def markdown(self) -> str:
        """The table."""
        head, *rows = shown_rows(self)
        lines = [f'### At {self.tap}', '', '| ' + ' | '.join(head) + ' |', '|' + ' --- |' * len(head)]
        lines += ['| ' + ' | '.join(row) + ' |' for row in rows]
        lines += ['', *(f'{n + 1}. {text}: **{self.verdict(n)}**' for n, text in enumerate(HYPOTHESES)), '']
        return '\n'.join([*lines, self.remark()]) + '\n'


def shown_rows(report: Report) -> list[list[str]]:
    """The table as words, its head first."""
    teachers = list(report.rows[0].teacher)
    head = ['measure', 'expected', 'baseline', 'student', *teachers, 'difference', '± images']
    lines = [[*head, '± seeds', 'verdict']]
    for row in report.rows:
        told = [row.name, 'larger' if row.larger else 'smaller', _shown(row.baseline), _shown(row.student)]
        told += [_number(row.teacher.get(name)) for name in teachers]
        numbers = [_number(row.gain, sign=True), _number(row.over_images), _number(row.over_seeds)]
        lines.append([*told, *numbers, row.verdict])
    return lines


def compare(
    tap: str,
    baselines: Sequence[Measured],
    students: Sequence[Measured],
    teachers: Sequence[Measured],
    left_out: dict[str, int],
) -> Report:
    """Student against baseline, measure by measure.

    Args:
        tap: Where.
        baselines: Runs without a teacher.
        students: Runs with one, on the same images.
        teachers: Measured at one checkpoint each.
        left_out: Images that do not count, by reason.
    """
    rows = [_row(one, baselines, students, teachers) for one in _MEASURES]
    everybody = [*baselines, *students, *teachers]
    means = torch.cat([_means(m).flatten() for m in everybody])
    first = (baselines[0].run, students[0].run)
    if any(m.path is None for m in (*baselines, *students)):
        path = 'Without several checkpoints of each there is no path, and the last two hypotheses are not measured.'
    elif all(run.by_steps for run in first):
        path = 'The path is that over optimizer steps, as PathLengthHook summed it.'
    else:
        path = 'The path is that from one checkpoint to the next, which is shorter than that over optimizer steps.'
    count = baselines[0].entropy.shape[1]
    return Report(tap, count, left_out, rows, (float(means.min()), float(means.max())), path)


def _means(measured: Measured) -> Tensor:
    return measured.entropy.flatten(2).nanmean(2)


def _row(
    one: _Measure, baselines: Sequence[Measured], students: Sequence[Measured], teachers: Sequence[Measured]
) -> Row:
    values = [[one.of_images(m) for m in side] for side in (baselines, students)]
    if any(value is None for side in values for value in side):
        return Row(one.name, one.hypothesis, one.larger, [], [])
    before, after = (torch.stack([v for v in side if v is not None]) for side in values)
    # rho is of images that ever had a concept, and a run may have none of these
    told = [[mean for run in side if not math.isnan(mean := float(run.nanmean()))] for side in (before, after)]
    if not all(told):
        return Row(one.name, one.hypothesis, one.larger, told[0], told[1])
    row = Row(one.name, one.hypothesis, one.larger, told[0], told[1])
    if one.hypothesis == 0:
        row.teacher = {m.run.role: float(v.mean()) for m in teachers if (v := one.of_images(m)) is not None}
    row.gain = statistics.fmean(told[1]) - statistics.fmean(told[0])
    each = after.nanmean(0) - before.nanmean(0)
    each = each[~each.isnan()]
    if len(each) > 1:
        row.over_images = float(each.std()) / math.sqrt(len(each))
    if min(map(len, told)) > 1:
        row.over_seeds = math.sqrt(sum(statistics.variance(side) / len(side) for side in told))
    errors = [error for error in (row.over_images, row.over_seeds) if error is not None]
    far = bool(errors) and abs(row.gain) > 2 * max(errors)
    row.verdict = OPEN if not far else HOLDS if (row.gain > 0) == one.larger else REVERSED
    return row


def _number(value: float | None, sign: bool = False) -> str:
    return '' if value is None else f'{value:{"+" if sign else ""}.3g}'


def _shown(values: Sequence[float]) -> str:
    if not values:
        return ''
    spread = f' ± {statistics.stdev(values):.2g}' if len(values) > 1 else ''
    return f'{statistics.fmean(values):.3g}{spread}'
