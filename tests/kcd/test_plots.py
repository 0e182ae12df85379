"""Pictures of KCD: tables made by hand, what is counted, what the figures hold, what is refused."""

import io
import json
import runpy

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mmkd_plugin.files.configs import config_path
from mmkd_plugin.kcd.plots import (
    SETS,
    Round,
    count_flows,
    draw_flow,
    draw_samples,
    draw_values,
    extremes,
    read_rounds,
)
from tests.end_to_end.helpers import ROOT, forked

HEADER = 'sample,value,count,set,path'
# sample by sample, after rounds 1 to 3: 0 stays, 1 is mixed and then as it was, 2 returns, 3 returns mixed, 4 goes late
SETS_OF = ['high high high', 'low high high', 'dropped high low', 'dropped dropped low', 'high high dropped']
VALUES = [[3.0, 2.5, 1.5, 1.0, ''], [2.8, 2.0, 1.5, 1.0, 2.2], [2.7, 1.9, 1.6, 1.0, 0.5]]


def write_table(work_dir, number, values, sets, paths=None):
    rows = zip(range(len(sets)), values, sets, paths or [f'x/{i}' for i in range(len(sets))], strict=True)
    lines = [HEADER, *(f'{i},{value},{0 if value == "" else number},{name},{path}' for i, value, name, path in rows)]
    (work_dir / 'kcd').mkdir(exist_ok=True, parents=True)
    (work_dir / 'kcd' / f'round_{number}.csv').write_text('\r\n'.join(lines) + '\r\n')  # as the csv module writes


@pytest.fixture
def work_dir(tmp_path):
    for place, values in enumerate(VALUES):
        write_table(tmp_path, place + 1, values, [sets.split()[place] for sets in SETS_OF])
    return tmp_path


def rounds_of(*sets, values=None):
    """Rounds from words such as 'hld', a letter for each sample."""
    places = [np.array(['hld'.index(letter) for letter in word], np.int8) for word in sets]
    values = [np.arange(len(places[0]), dtype=float)] * len(sets) if values is None else values
    return [Round(i + 1, value, place, ()) for i, (value, place) in enumerate(zip(values, places, strict=True))]


def tool(name='plot_kcd'):
    """What tools/plot_kcd.py defines."""
    return runpy.run_path(str(ROOT / 'tools/plot_kcd.py'), run_name=name)


def run(monkeypatch, *arguments):
    """The command in this process."""
    monkeypatch.setattr('sys.argv', ['plot_kcd.py', *map(str, arguments)])
    tool('__main__')


class TestReading:
    def test_columns(self, work_dir):
        rounds = read_rounds(work_dir / 'kcd')
        assert [one.number for one in rounds] == [1, 2, 3]
        np.testing.assert_array_equal(rounds[0].values, [3.0, 2.5, 1.5, 1.0, np.nan])
        assert [list(SETS)[place] for place in rounds[0].sets] == ['high', 'low', 'dropped', 'dropped', 'high']
        assert [list(one.paths) for one in rounds] == [[], [], ['x/0', 'x/1', 'x/2', 'x/3', 'x/4']]

    def test_rounds_come_by_number_and_other_files_are_left_alone(self, tmp_path):
        for number in range(1, 12):
            write_table(tmp_path, number, [number], ['high'])
        (tmp_path / 'kcd' / 'round_1.csv.bak').write_text('?')
        assert [one.values[0] for one in read_rounds(tmp_path / 'kcd')] == list(range(1, 12))

    def test_paths_as_the_csv_module_quotes_them(self, tmp_path):
        write_table(tmp_path, 1, [1, 2, 3], ['high'] * 3, ['"a,b.jpg"', '"a""b#.jpg"', ''])
        assert read_rounds(tmp_path / 'kcd')[0].paths == ['a,b.jpg', 'a"b#.jpg', '']

    @pytest.mark.parametrize(
        ('text', 'told'),
        [
            (f'{HEADER}\n0,1,1,high,a\n1,1,1,middle,b\n', "'middle'.*one of high, low, dropped"),
            (f'{HEADER}\n0,one,1,high,a\n', "could not convert string 'one'"),
            (f'{HEADER}\n0,inf,1,high,a\n', 'infinite'),
            (f'{HEADER}\n0,1,1,high,a\n1,1,1\n', '5 columns but 3 were found'),
            (f'{HEADER}\n1,1,1,high,a\n', 'not in order'),
            (f'{HEADER}\n0,1,1,high,a\n2,1,1,high,a\n', 'not in order'),
            ('0,1,1,high,a\n', "its first line is '0,1,1,high,a'"),
            ('', "its first line is ''"),
        ],
    )
    def test_damaged_tables(self, work_dir, text, told):
        (work_dir / 'kcd' / 'round_2.csv').write_text(text)
        with pytest.raises(ValueError, match=rf'round_2.csv is no table of a round: .*{told}'):
            read_rounds(work_dir / 'kcd')

    @pytest.mark.filterwarnings('ignore:loadtxt. input contained no data')
    def test_no_samples_and_no_text(self, work_dir):
        (work_dir / 'kcd' / 'round_2.csv').write_text(f'{HEADER}\n')
        with pytest.raises(ValueError, match='samples are missing'):
            read_rounds(work_dir / 'kcd')
        (work_dir / 'kcd' / 'round_2.csv').write_bytes(b'\xff\xfe')
        with pytest.raises(ValueError, match=r'round_2\.csv is no table'):
            read_rounds(work_dir / 'kcd')

    def test_tables_of_different_data(self, work_dir):
        write_table(work_dir, 3, [1], ['high'])
        with pytest.raises(ValueError, match=r'round_3.csv has 1 samples, round_1.csv 5'):
            read_rounds(work_dir / 'kcd')

    def test_no_tables_and_a_missing_one(self, work_dir):
        with pytest.raises(
            FileNotFoundError, match=r"'none' has no tables, expected round_1.csv.*give the work folder"
        ):
            read_rounds('none')
        (work_dir / 'kcd' / 'round_2.csv').unlink()
        with pytest.raises(FileNotFoundError, match=r'has the tables of rounds \[1, 3\]'):
            read_rounds(work_dir / 'kcd')


class TestFlows:
    def test_by_hand(self, work_dir):
        flows = count_flows(read_rounds(work_dir / 'kcd'))
        assert flows.tolist() == [
            [[2, 1, 2], [0, 0, 0], [0, 0, 0]],
            [[2, 0, 0], [1, 0, 0], [1, 0, 1]],
            [[2, 1, 1], [0, 0, 0], [0, 1, 0]],
        ]

    def test_nothing_is_lost_on_the_way(self):
        rng = np.random.default_rng(0)
        rounds = rounds_of(*(''.join(rng.choice(list('hld'), 300)) for _ in range(5)))
        flows = count_flows(rounds)
        for one, flow, following in zip(rounds, flows, [*flows[1:], None], strict=True):
            assert flow.sum() == 300
            sizes = [(one.sets == place).sum() for place in range(3)]
            np.testing.assert_array_equal(flow.sum(0), sizes)
            if following is not None:
                np.testing.assert_array_equal(following.sum(1), sizes)

    def test_bars_bands_and_numbers(self, work_dir):
        axes = draw_flow(read_rounds(work_dir / 'kcd')).axes[0]
        heights = [[round(bar.get_height(), 6) for bar in container] for container in axes.containers]
        assert heights == [[5, 2, 4, 2], [0, 1, 0, 2], [0, 2, 1, 1]]  # high, low, dropped: before and after each round
        assert len(axes.patches) - 12 == 3 + 4 + 4  # bands: as many as counts in the test by hand
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == [
            'before',
            'round 1\n2 newly dropped\n0 returned',
            'round 2\n0 newly dropped\n1 returned',
            'round 3\n1 newly dropped\n1 returned',
        ]
        before = [text.get_text() for text in axes.texts if text.get_position()[0] == 0]
        assert before == ['5']

    def test_bands_are_as_thick_as_samples_and_meet_the_bars(self):
        axes = draw_flow(rounds_of('hhhhhhhhld')).axes[0]
        bars = {name: container[1] for name, container in zip(SETS, axes.containers, strict=True)}
        bands = [np.asarray(patch.get_path().vertices) for patch in axes.patches if isinstance(patch, PathPatch)]
        assert [round(band[0, 1] - band[-1, 1]) for band in bands] == [8, 1, 1]
        for band, bar in zip(bands, bars.values(), strict=True):
            np.testing.assert_allclose(sorted(band[[3, 4], 1]), [bar.get_y(), bar.get_y() + bar.get_height()])

    def test_of_many_rounds_ten_are_shown(self):
        rounds = rounds_of(*['h' * (40 - i) + 'd' * i for i in range(40)])
        figure = draw_flow(rounds)
        labels = [label.get_text().splitlines() for label in figure.axes[0].get_xticklabels()]
        assert len(labels) == 11
        assert labels[1][0] == 'round 1'
        assert labels[-1][0] == 'round 40'
        assert sum(int(label[1].split()[0]) for label in labels[1:]) == 39
        assert figure.get_size_inches()[0] * 150 < 3200
        assert len(draw_values(rounds).axes) == 10


class TestValues:
    def test_areas_are_the_numbers_of_samples(self):
        rng = np.random.default_rng(0)
        values = rng.normal(size=5000) * np.where(rng.random(5000) < 0.001, 1e6, 1)
        values[:70] = np.nan
        word = ''.join(rng.choice(list('hld'), 5000, p=[0.7, 0.1, 0.2]))
        (axes,) = draw_values(rounds_of(word, values=[values])).axes
        areas = {}
        for patch in axes.patches:
            x, y = np.asarray(patch.get_path().vertices).T
            width = np.diff(np.unique(x)).min()
            areas[to_hex(patch.get_facecolor())] = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 / width
        for (_, colour), letter in zip(SETS.values(), 'hld', strict=True):
            assert round(areas[colour], 6) == word[70:].count(letter)
        assert [text.get_text() for text in axes.texts] == ['without a value: 70']
        assert np.ptp(axes.get_xlim()) < 10000  # a few far out do not squeeze the others

    @pytest.mark.parametrize('values', [[np.nan] * 3, [1.0] * 3, [0.0, np.nan, 5.0]])
    def test_few_equal_or_no_values(self, values):
        figure = draw_values(rounds_of('hld', 'hhd', values=[np.array(values)] * 2))
        figure.savefig(io.BytesIO())
        assert [axes.get_ylabel() for axes in figure.axes] == ['round 1\nsamples', 'round 2\nsamples']


class TestSamples:
    def test_extremes(self):
        (last,) = rounds_of('hhhhh', values=[np.array([2.0, np.nan, 5.0, 1.0, 3.0])])
        assert extremes(last, 2) == ([2, 4], [3, 0])
        assert extremes(last, 9) == ([2, 4, 0, 3], [3, 0, 4, 2])
        assert extremes(last._replace(values=np.full(5, np.nan)), 2) == ([], [])

    def test_images_captions_and_frames(self):
        (last,) = rounds_of('hldhhhhhhhhh')
        images = {sample: np.full((4 + sample, 6, 3), sample, np.uint8) for sample in range(12)}
        images[11] = np.zeros((2000, 10, 3), np.uint8)
        figure = draw_samples(last, *extremes(last, 9), images)
        shown = [axes for axes in figure.axes if axes.get_visible()]
        assert [axes.get_xlabel().split('\n')[0] for axes in shown] == [
            f'sample {i}' for i in [*range(11, 2, -1), *range(9)]
        ]
        assert [axes.get_xlabel().split('\n')[1] for axes in shown[9:12]] == ['0, high', '1, low', '2, dropped']
        assert max(shown[0].images[0].get_size()) <= 500
        for axes, sample in zip(shown[1:], [*range(10, 2, -1), *range(9)], strict=True):
            np.testing.assert_array_equal(axes.images[0].get_array(), images[sample])


class TestCommand:
    @pytest.mark.openmmlab
    def test_embedded_images_come_from_the_config_in_the_work_folder(self, tmp_path):
        config = Config.fromfile(config_path('digits/resnet_student.py'))
        config.train_dataloader.dataset.per_class = 2
        config.dump(tmp_path / 'run.py')
        dataset = DATASETS.build(config.train_dataloader.dataset)
        paths = [dataset.get_data_info(i)['img_path'] for i in range(20)]
        write_table(tmp_path, 1, np.linspace(0, 2, 20), ['dropped'] * 5 + ['low'] * 5 + ['high'] * 10, paths)
        out = forked('tools/plot_kcd.py', tmp_path, '--images', 3).stdout
        images = tool()['read_images'](paths, [3, 17], tmp_path, None)
        for sample, image in images.items():
            np.testing.assert_array_equal(image, np.repeat(dataset.get_data_info(sample)['img'], 3, -1))
        for name in ('values', 'flow', 'samples'):
            picture = cv2.imread(str(tmp_path / 'kcd' / f'{name}.png'))
            assert min(picture.shape[:2]) > 500
            assert str(tmp_path / 'kcd' / f'{name}.png') in out

    def test_images_that_are_files_need_no_config(self, tmp_path, monkeypatch):
        for i, colour in enumerate([(0, 0, 255), (0, 255, 0)]):  # BGR
            cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((20, 30, 3), colour, np.uint8))
        write_table(tmp_path, 1, [2, 1], ['high', 'dropped'], [tmp_path / f'{i}.png' for i in range(2)])
        run(monkeypatch, tmp_path, '--out-dir', tmp_path / 'out')
        picture = cv2.imread(str(tmp_path / 'out' / 'samples.png')).reshape(-1, 3)
        assert all((picture == colour).all(1).sum() > 5000 for colour in [(0, 0, 255), (0, 255, 0)])

    def test_images_that_moved_come_from_a_config(self, tmp_path):
        (tmp_path / 'moved').mkdir()
        for i in range(2):
            cv2.imwrite(str(tmp_path / 'moved' / f'{i}.png'), np.full((4, 5, 3), (0, 100 * i, 200), np.uint8))
        entries = [{'img_path': f'{i}.png'} for i in range(2)]
        (tmp_path / 'all.json').write_text(json.dumps({'metainfo': {}, 'data_list': entries}))
        prefix = {'img_path': str(tmp_path / 'moved')}
        data = {'type': BaseDataset, 'ann_file': str(tmp_path / 'all.json'), 'data_prefix': prefix}
        # mmdet's way to say that the model takes RGB; files hold BGR all the same
        config = Config({'train_dataloader': {'dataset': data}, 'model': {'data_preprocessor': {'bgr_to_rgb': True}}})
        images = tool()['read_images'](['old/0.png', 'old/1.png'], [1], tmp_path, config)
        assert images[1][0, 0].tolist() == [200, 100, 0]
        with pytest.raises(ValueError, match=r"is '1\.png', of the tables 'old/0\.png'"):
            tool()['read_images'](['old/1.png', 'old/0.png'], [1], tmp_path, config)

    def test_without_images_two_pictures_are_left(self, work_dir, monkeypatch, capsys):
        run(monkeypatch, work_dir)
        told = capsys.readouterr().out
        assert "samples.png is left out: sample 0 ('x/0') is no file here" in told
        assert 'has 0 configs, expected one' in told
        assert '--config CONFIG' in told
        assert sorted(path.name for path in (work_dir / 'kcd').glob('*.png')) == ['flow.png', 'values.png']

    def test_data_of_another_config(self, work_dir, monkeypatch, capsys):
        config = work_dir / 'other.py'
        config.write_text(
            "train_dataloader = dict(dataset=dict(type='Digits', per_class=2))\nmodel = dict()\n"
            "custom_imports = dict(imports=['mmkd_plugin'])\ndefault_scope = 'mmengine'\n"
        )
        run(monkeypatch, work_dir, '--config', config, '--out-dir', work_dir / 'out')
        assert 'other.py has 20 samples, the tables 5' in capsys.readouterr().out

    def test_files_that_are_no_images(self, work_dir, monkeypatch, capsys):
        table = work_dir / 'kcd' / 'round_1.csv'
        write_table(work_dir / 'other', 1, [1.0], ['high'], [table])
        run(monkeypatch, work_dir / 'other')
        assert f"samples.png is left out: '{table}' is no image" in capsys.readouterr().out

    def test_values_of_no_sample(self, tmp_path, monkeypatch, capsys):
        write_table(tmp_path, 1, ['', ''], ['high', 'dropped'])
        run(monkeypatch, tmp_path)
        assert 'samples.png is left out: no sample has a value yet' in capsys.readouterr().out

    @pytest.mark.parametrize(
        ('arguments', 'told'),
        [
            (['no/such'], "plot_kcd.py: 'no/such/kcd' has no tables"),
            (['no/such', '--images', '0'], '--images 0 given, expected 1 to 200'),
            (['no/such', '--config', 'no/such.py'], "config 'no/such.py' does not exist"),
        ],
    )
    def test_mistakes_are_told_without_a_traceback(self, monkeypatch, arguments, told):
        with pytest.raises(SystemExit, match=told):
            run(monkeypatch, *arguments)
