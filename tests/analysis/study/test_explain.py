"""Whole studies of tiny networks: what is written, going on after an end, and everything that is refused before."""

import json
import re

import numpy as np
import pytest
import torch

from mmkd_plugin.analysis.discarding import discard
from mmkd_plugin.files.configs import config_path
from tests.analysis.study.runs import explained, make_run, weights
from tests.end_to_end.helpers import parse

pytestmark = pytest.mark.openmmlab


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    return {name: make_run(folder / name, seed) for seed, name in enumerate(('base0', 'base1', 'kd0', 'kd1'), 1)}


@pytest.fixture(scope='module')
def done(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp('study')
    text = explained(folder, [runs['kd0'], runs['kd1']], [runs['base0'], runs['base1']], '--teacher')
    return folder, text


class TestWhole:
    def test_table_and_values(self, done):
        folder, text = done
        assert (folder / 'table.md').read_text() in text
        (report,) = json.loads((folder / 'values.json').read_text())
        assert [row['name'] for row in report['rows']] == ['N_fg', 'N_bg', 'lambda', 'D_mean', 'D_var', 'rho']
        assert all(len(row['baseline']) == len(row['student']) == 2 for row in report['rows'][:5])
        assert list(report['rows'][0]['teacher']) == ['teacher']
        assert report['rows'][3]['teacher'] == {}
        assert len(report['hypotheses']) == 3
        assert 'that over optimizer steps' in report['path']
        # of paths 3 and 6 (checkpoints 1 and 4), in norms of the first weights
        assert 3.0 <= report['rows'][3]['student'][0] <= 6.0

    def test_pictures_and_a_page_that_needs_nothing_else(self, done):
        folder, _ = done
        names = {path.name for path in folder.glob('*.png')}
        assert names == {
            'speed_backbone-layer4.png', 'changes_backbone-layer4.png',
            *(f'entropy_backbone-layer4_{index}.png' for index in (0, 333, 666)),
        }  # fmt: skip
        page = (folder / 'page.html').read_text()
        assert page.count('src="data:image/png;base64,') == len(names) == page.count('src=')
        assert not re.search('https?:|<script|<link', page)

    def test_goes_on_with_what_is_missing_alone(self, done, runs, monkeypatch, capsys):
        """And gives the same; another number of images at once changes nothing but rounding."""
        folder, text = done
        files = sorted(folder.glob('sigma/*/*/*.npz'))
        assert len(files) == 3 * (4 * 2 + 1)
        lost = files[::5]
        before = {path: np.load(path, allow_pickle=False)['sigma'] for path in lost}
        for path in lost:
            path.unlink()
        kept = {path: path.stat().st_mtime_ns for path in files if path not in lost}
        seen = []

        def watched(*args, **kwargs):
            seen.append(len(args))
            return discard(*args, **kwargs)

        monkeypatch.setattr('mmkd_plugin.analysis.study.work.discard', watched)
        again = explained(
            folder, [runs['kd0'], runs['kd1']], [runs['base0'], runs['base1']], '--teacher', '--batch', 1, '--rows', 1
        )
        assert again == text
        assert f'{len(lost) * 2 * 5:,} passes of an image' in capsys.readouterr().out
        assert sum(count > 3 for count in seen) == len(lost)  # those with keys; the others are for the estimate
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        for path, sigma in before.items():
            np.testing.assert_allclose(np.load(path, allow_pickle=False)['sigma'], sigma, rtol=1e-5)

    def test_one_checkpoint_of_each_has_no_path(self, tmp_path, runs):
        last = 'explain/epoch_4.pth'
        text = explained(tmp_path / 'study', [runs['kd0'] / last], [runs['base0'] / last])
        assert text.count('not measured') >= 5
        assert not list(tmp_path.glob('study/speed*'))

    def test_paths_between_checkpoints_where_a_run_does_not_tell(self, tmp_path, runs, capsys):
        plain = make_run(tmp_path / 'plain', 3, told=False)
        text = explained(tmp_path / 'study', [plain], [runs['base0']])
        assert 'The path is that from one checkpoint to the next' in text
        assert 'Not all runs tell the path over optimizer steps' in capsys.readouterr().out

    def test_quick_is_smaller(self):
        args = parse('explain.py', 'c.py', 'a', '--baseline', 'b', '--quick')
        assert (args.images, args.noise, args.checkpoints) == (6, 24, 4)
        assert parse('explain.py', 'c.py', 'a', '--baseline', 'b', '--quick', '--images', 9).images == 9


class TestRefusals:
    """All of them before anything is computed."""

    @pytest.fixture(autouse=True)
    def _computes_nothing(self, monkeypatch):
        def begin(*args, **kwargs):
            raise AssertionError('work began')

        monkeypatch.setattr('mmkd_plugin.analysis.study.work.discard', begin)

    @pytest.mark.parametrize(
        ('more', 'message'),
        [
            (['--tap', 'backbone.layer9'], r"no module 'backbone.layer9'"),
            (['--tap', 'backbone.layer4'], r'expected each once'),
            (['--tap', 'neck'], r"'neck' of the baseline .* has no weights"),
            (['--teacher', '--tap', 'head.fc=backbone.layer9'], r'the teacher .* has no module'),
            (['--cells', 'tap', '--tap', 'head.fc'], r"'head.fc' gives \(10,\) for an image, expected a square map"),
            (['--cells', '29'], r'29x29 cells given for images of 28x28'),
            (['--images', '1001'], r'1001 images given, the test data has 1000'),
            (['--masks', 'no/such'], r"'no/such' given, expected 'centre', 'boxes'"),
            (['--masks', 'boxes'], r'image 0 \(0400\) has no boxes'),
            (['--cells', '1'], r'with 1x1 cells image 0 \(0400\) has no background'),
        ],
    )
    def test_options(self, tmp_path, runs, more, message):
        with pytest.raises(ValueError, match=message):
            explained(tmp_path / 'study', [runs['kd0']], [runs['base0']], *more)

    def test_no_teacher(self, tmp_path, runs):
        config = config_path('digits/resnet_student.py')
        with pytest.raises(ValueError, match='names no trained teacher'):
            explained(tmp_path / 'study', [runs['kd0']], [runs['base0']], '--teacher', config=config)

    def test_checkpoints(self, tmp_path, runs):
        (tmp_path / 'empty').mkdir()
        other = weights(0)
        other['head.fc.weight'] = other['head.fc.weight'][:3]
        torch.save({'state_dict': other}, tmp_path / 'other.pth')
        for given, message in (
            ('no/such.pth', "'no/such.pth' of the student does not exist"),
            (tmp_path / 'empty', r'of the student has no checkpoints'),
            (tmp_path / 'other.pth', r'does not fit ImageClassifier'),
            (runs['base0'], r'end with the same weights'),
            (make_run(tmp_path / 'others', 5, (0, 2, 4)), r'runs have different checkpoints: \[1, 4\]; \[2, 4\]'),
        ):
            with pytest.raises((FileNotFoundError, ValueError), match=message):
                explained(tmp_path / 'study', [given], [runs['base0']])
        with pytest.raises(ValueError, match='expected each run once'):
            explained(tmp_path / 'study', [runs['kd0'], runs['kd0']], [runs['base0']])

    def test_folders(self, tmp_path, runs, done):
        """Made with other settings, of something else, or damaged."""
        folder, _ = done
        one = [runs['kd0']], [runs['base0']]
        with pytest.raises(ValueError, match=r'was made with other settings: cells: 4 there, 5 now'):
            explained(folder, *one, '--cells', 5)
        with pytest.raises(ValueError, match=r'no folder of a study'):
            explained(runs['kd0'], *one)
        file = next(folder.glob('sigma/*/*/0.npz'))
        whole = file.read_bytes()
        for damaged in (whole[:40], b'', b'no archive'):
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match=r'0.npz. is damaged'):
                explained(folder, [runs['kd0'], runs['kd1']], [runs['base0'], runs['base1']], '--teacher')
        file.write_bytes(whole)

    def test_another_image(self, done, runs):
        folder, _ = done
        with pytest.raises(ValueError, match='is of another image than image 0'):
            explained(
                folder, [runs['kd0'], runs['kd1']], [runs['base0'], runs['base1']],
                '--images', 1, '--cfg-options', 'test_dataloader.dataset.indices=[3]',
            )  # fmt: skip

    @pytest.mark.parametrize('wrong', [('--images', 0), ('--cells', 'few'), ('--layer', 'a', 'b'), ('--rows', 0)])
    def test_arguments(self, wrong, capsys):
        with pytest.raises(SystemExit, match='2'):
            parse('explain.py', 'c.py', 'a', '--baseline', 'b', *wrong)
        assert 'given' in capsys.readouterr().err
