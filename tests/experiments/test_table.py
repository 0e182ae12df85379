"""What the table says, on values that a reader can check by hand."""

import csv
import io
import json
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mmkd_plugin.experiments import Comparison, draw_gains, verdict
from mmkd_plugin.experiments.table import ABOVE, BELOW, UNKNOWN, WITHIN, find_metric, standard_error
from tests.experiments.helpers import finished, run


@pytest.mark.parametrize(
    ('values', 'plain', 'expected'),
    [
        ([1.0, 3.0], [4.0, 8.0], (2 / 2 + 8 / 2) ** 0.5),
        ([1.0, 2.0, 3.0], [4.0, 8.0], (1 / 3 + 8 / 2) ** 0.5),  # as many as there are on each side
        ([1.0, 1.0], [2.0, 2.0], 0.0),
        ([1.0], [4.0, 8.0], None),
        ([1.0, 3.0], [4.0], None),
    ],
)
def test_standard_error_of_a_difference(values, plain, expected):
    assert standard_error(values, plain) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ('gain', 'error', 'expected'),
    [
        (2.1, 1.0, ABOVE), (-2.1, 1.0, BELOW), (2.0, 1.0, WITHIN), (-2.0, 1.0, WITHIN), (0.0, 1.0, WITHIN),
        (0.1, 0.0, ABOVE), (0.0, 0.0, WITHIN), (50.0, None, UNKNOWN),
    ],
)  # fmt: skip
def test_verdict(gain, error, expected):
    assert verdict(gain, error) == expected


def table(comparison):
    lines = [line[2:-2].split(' | ') for line in comparison.markdown().splitlines() if line.startswith('|')]
    header, _, *rows = lines
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_columns(tmp_path):
    plain = finished(tmp_path, 'plain', [4.0, 8.0], step_time=0.1, memory=300.0)
    teacher = {'teacher/accuracy/top1': 99.0}
    kd = finished(tmp_path, 'kd', [21.0, 23.0], step_time=0.15, memory=400.0, jobs=2, **teacher)
    comparison = Comparison([*plain, *kd], 'plain')
    rows = table(comparison)
    assert [row['model'] for row in rows] == ['teacher', 'plain', 'kd']
    assert rows[0]['accuracy/top1 (%)'] == '99.00'
    assert rows[0]['parameters'] == '1,000'
    assert rows[1] == {
        'model': 'plain', 'accuracy/top1 (%)': '6.00 ± 2.83', 'seeds': '2', 'gain': '', 'verdict': '',
        'parameters': '100', 'trained beside': '7', 'step time': '1.00', 'peak memory (MiB)': '300',
    }  # fmt: skip
    assert rows[2] == {
        'model': 'kd', 'accuracy/top1 (%)': '22.00 ± 1.41', 'seeds': '2', 'gain': '+16.00 ± 2.24', 'verdict': 'above',
        'parameters': '100', 'trained beside': '7', 'step time': '1.50', 'peak memory (MiB)': '400',
    }  # fmt: skip
    text = comparison.markdown()
    assert text.startswith('accuracy/top1 (%), last epoch (not the best), 2 seeds:')
    assert 'more than 2 standard errors' in text
    assert '--jobs 1 and 2' in text


def test_runs_that_failed_or_are_missing(tmp_path):
    plain = finished(tmp_path, 'plain', [4.0, 8.0, 6.0])
    some = finished(tmp_path, 'some', [5.0, 6.0, None])
    none = finished(tmp_path, 'none', [None, None, None])
    begun = [*finished(tmp_path, 'begun', [7.0]), run(tmp_path, 'begun', 1), run(tmp_path, 'begun', 2)]
    comparison = Comparison([*plain, *some, *none, *begun], 'plain')
    rows = {row['model']: row for row in table(comparison)}
    assert rows['some']['seeds'] == '2 of 3, failed 1 of 3'
    assert rows['none']['seeds'] == '0 of 3, failed 3 of 3'
    assert rows['none']['accuracy/top1 (%)'] == rows['none']['gain'] == rows['none']['verdict'] == ''
    assert rows['begun']['seeds'] == '1 of 3'
    assert rows['begun']['verdict'] == 'no error known'
    assert f'Failed: some, seed 2: ValueError: no ({tmp_path / "some/seed2/train.log"})' in comparison.markdown()


def test_a_run_without_the_metric_is_no_value(tmp_path):
    runs = [*finished(tmp_path, 'plain', [4.0, 8.0]), *finished(tmp_path, 'other', [1.0, 2.0], metric='loss')]
    rows = table(Comparison(runs, 'plain'))
    assert rows[1]['seeds'] == '0 of 2, failed 2 of 2'


def test_fractions_are_shown_in_percent(tmp_path):
    runs = finished(tmp_path, 'plain', [0.25, 0.75], metric='pascal_voc/mAP')
    assert table(Comparison(runs, 'plain'))[0]['pascal_voc/mAP (%)'] == '50.00 ± 35.36'
    percent = finished(tmp_path / 'other', 'plain', [0.25, 0.75], metric='multi-label/mAP')
    assert table(Comparison(percent, 'plain'))[0]['multi-label/mAP'] == '0.50 ± 0.35'


def test_teachers(tmp_path):
    """The same one for several methods is one row, another one has its own."""
    runs = finished(tmp_path, 'plain', [4.0, 8.0])
    for name, value in (('kd', 99.0), ('dkd', 99.0), ('nst', 97.0)):
        runs += finished(tmp_path, name, [9.0], **{'teacher/accuracy/top1': value})
    assert [row['model'] for row in table(Comparison(runs, 'plain'))[:2]] == [
        'teacher of kd and 1 more',
        'teacher of nst',
    ]


def test_what_learns_in_each_run_has_one_row(tmp_path):
    runs = finished(tmp_path, 'plain', [4.0, 8.0])
    for name, values in (('mutual', (84.0, 86.0)), ('others', (90.0, 90.0))):
        for seed, value in enumerate(values):
            own = finished(tmp_path / str(seed), name, [5.0], **{'peer/accuracy/top1': value})
            runs += own
    rows = {row['model']: row for row in table(Comparison(runs, 'plain'))}
    assert list(rows)[:2] == ['peer of mutual', 'peer of others']
    assert (rows['peer of mutual']['accuracy/top1 (%)'], rows['peer of mutual']['seeds']) == ('85.00 ± 1.41', '2')
    assert rows['peer of others']['accuracy/top1 (%)'] == '90.00'


def test_which_metric(tmp_path):
    one = finished(tmp_path / '1', 'plain', [1.0], metric='own/score', **{'teacher/own/score': 2.0})
    assert find_metric(one, 'plain') == 'own/score'
    usual = finished(tmp_path / '2', 'plain', [1.0], metric='accuracy/top5', **{'accuracy/top1': 2.0})
    assert find_metric(usual, 'plain') == 'accuracy/top1'
    assert find_metric(usual, 'plain', 'accuracy/top5') == 'accuracy/top5'
    several = finished(tmp_path / '3', 'plain', [1.0], metric='a', b=2.0)
    with pytest.raises(ValueError, match='name one by --metric: a, b'):
        find_metric(several, 'plain')
    with pytest.raises(ValueError, match=r"--metric 'c' was not logged, only a, b"):
        find_metric(several, 'plain', 'c')
    with pytest.raises(ValueError, match='no run is finished'):
        find_metric([run(tmp_path / '4')], 'plain')


def test_files(tmp_path):
    runs = [*finished(tmp_path, 'plain', [4.0, 8.0]), *finished(tmp_path, 'kd', [21.0, None])]
    comparison = Comparison(runs, 'plain')
    comparison.write(tmp_path)
    assert (tmp_path / 'table.md').read_text() == comparison.markdown()
    plain, kd = csv.DictReader(io.StringIO((tmp_path / 'table.csv').read_text()))
    assert (plain['mean'], plain['seeds'], plain['gain']) == ('6.0', '2', '')
    assert (kd['mean'], kd['seeds'], kd['failed'], kd['gain'], kd['std']) == ('21.0', '1', '1', '15.0', '')
    values = json.loads((tmp_path / 'values.json').read_text())
    assert values['metric'] == 'accuracy/top1'
    assert values['runs']['kd']['seeds']['0']['result']['metrics'] == {'accuracy/top1': 21.0}
    assert values['runs']['kd']['seeds']['1'] == {'result': None, 'failure': 'ValueError: no'}


@pytest.mark.parametrize('methods', [0, 1, 25])
def test_nothing_of_the_picture_is_cut_off(tmp_path, methods):
    runs = finished(tmp_path, 'plain', [4.0, 8.0])
    for i in range(methods):
        runs += finished(tmp_path, f'method{i}_{"of_a_long_name_" * (i % 5)}', [None if i == 3 else 10.0 + i, 90.0 - i])
    figure = draw_gains(Comparison(runs, 'plain'))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    assert (pixels[2:-2, 2:-2] < 255).any()
    for border in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (border == 255).all()
    labels = figure.axes[0].get_yticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == methods
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    assert 'last epoch' in figure.get_suptitle()
