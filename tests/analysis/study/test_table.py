"""Verdicts: by the larger error, in the direction that a hypothesis names."""

import math

import pytest
import torch

from mmkd_plugin.analysis.learning import changes
from mmkd_plugin.analysis.study.measures import Measured
from mmkd_plugin.analysis.study.networks import Checkpoint, Run
from mmkd_plugin.analysis.study.table import compare


def measured(role, foreground, background=None, path=None):
    """A run of one checkpoint, or of several where a path is given; counts (K, N)."""
    foreground = torch.tensor(foreground)
    background = torch.ones_like(foreground) if background is None else torch.tensor(background)
    checkpoints = [Checkpoint(i, f'{role}{i}') for i in range(len(foreground))]
    zeros = torch.zeros(*foreground.shape, 2, 2)
    return Measured(
        Run(role, role, checkpoints), zeros - 2.8, zeros.bool(), foreground, background,
        foreground / (foreground + background), None, None, None, changes(zeros.bool()),
    )  # fmt: skip


def row_of(report, name):
    return next(row for row in report.rows if row.name == name)


def test_errors_as_counted_by_hand():
    baselines = [measured('baseline', [[1, 2, 3]]), measured('baseline', [[3, 2, 1]])]
    students = [measured('student', [[4, 5, 9]]), measured('student', [[6, 5, 7]])]
    row = row_of(compare('t', baselines, students, [], {}), 'N_fg')
    assert (row.baseline, row.student, row.gain) == ([2, 2], [6, 6], 4)
    # images: differences of means 3, 3, 6 have a standard deviation of sqrt(3)
    assert row.over_images == pytest.approx(math.sqrt(3) / math.sqrt(3))
    assert row.over_seeds == 0
    assert row.verdict == 'holds'


@pytest.mark.parametrize(
    ('student', 'verdict'),
    [
        ([[5, 6, 7]], 'holds'), ([[0, 0, 0]], 'reversed'), ([[2, 2, 2]], 'cannot be told'),
        ([[1, 2, 12]], 'cannot be told'),
    ],
)  # fmt: skip
def test_verdicts(student, verdict):
    report = compare('t', [measured('baseline', [[1, 2, 2]])], [measured('student', student)], [], {})
    assert row_of(report, 'N_fg').verdict == verdict
    assert row_of(report, 'D_mean').verdict == row_of(report, 'rho').verdict == 'not measured'
    assert [report.verdict(n) for n in (1, 2)] == ['not measured'] * 2


def test_seeds_that_differ_more_than_images_decide():
    baselines = [measured('baseline', [[1, 1, 1]]), measured('baseline', [[9, 9, 9]])]
    students = [measured('student', [[7, 7, 8]]), measured('student', [[8, 8, 8]])]
    row = row_of(compare('t', baselines, students, [], {}), 'N_fg')
    assert row.gain > 2 * row.over_images
    assert row.verdict == 'cannot be told'


def test_fewer_of_the_background_is_what_is_expected():
    before = measured('baseline', [[4, 4, 4]], [[3, 3, 4]])
    after = measured('student', [[4, 4, 4]], [[0, 0, 1]])
    report = compare('t', [before], [after], [measured('teacher', [[5, 5, 5]])], {})
    assert row_of(report, 'N_bg').verdict == 'holds'
    assert row_of(report, 'N_fg').verdict == 'cannot be told'
    assert report.verdict(0) == 'holds in part'
    assert row_of(report, 'N_fg').teacher == {'teacher': 5.0}
    assert '| N_bg | smaller | 3.33 | 0.333 | 1 | -3 |' in report.markdown()
