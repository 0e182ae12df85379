"""What our commands import before they answer; without a clock, in processes where nothing is imported yet."""

import runpy
import subprocess
import sys

import pytest

from mmkd_plugin.analysis import REDUCTIONS
from tests.end_to_end.helpers import ROOT, environment

TOOLS = """
import contextlib, io, runpy, sys
from pathlib import Path

sys.path.insert(0, 'tools')
tools = [path for path in sorted(Path('tools').glob('*.py')) if '__main__' in path.read_text()]
assert len(tools) >= 12, tools
for path in tools:
    for argument, code in (('--help', 0), ('--no-such-argument', 2)):
        sys.argv = [str(path), argument]
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                runpy.run_path(str(path), run_name='__main__')
        except SystemExit as end:
            assert end.code == code, (path, end.code, said.getvalue())
        assert said.getvalue().startswith(f'usage: {path.name}'), said.getvalue()
        heavy = {'torch', 'cv2', 'matplotlib', 'mmkd_plugin'} & sys.modules.keys()
        assert not heavy, (path, argument, heavy)
"""

RUN = """
import os, sys

import mmkd_plugin
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

heavy = {'matplotlib', 'mmcv', 'mmpretrain', 'scipy', 'torchvision'} & sys.modules.keys()
assert not heavy, f'import mmkd_plugin imports {heavy}'


@HOOKS.register_module()
class Stop(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        assert outputs['loss_dkd'] > 0
        heavy = {'mlxtend', 'mmdet', 'pandas', 'sklearn', 'scipy'} & sys.modules.keys()
        assert not heavy, f'a classifier imports {heavy}'
        import mmdet  # is to be had by whoever wants it

        print('one iteration', flush=True)
        os._exit(0)


from mmkd_plugin.launch import run_train
from tools.train import parse

run_train(parse(['configs/dkd_resnet.py', '--work-dir', sys.argv[1], '--cfg-options', 'custom_hooks.0.type=Stop',
                 'val_dataloader.dataset.indices=[0,400,999]']))
"""


def run(code, *arguments):
    environ = environment()
    environ['PYTHONPATH'] += f':{ROOT / "tools"}'
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)], cwd=ROOT, env=environ, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_help_and_slips_of_every_tool_import_no_torch():
    run(TOOLS)


@pytest.mark.openmmlab
def test_a_classifier_is_distilled_without_mmdet(tmp_path):
    """Nor what mmdet drags in; and mmdet is there for whoever asks."""
    assert 'one iteration' in run(RUN, tmp_path)


def test_what_tools_write_down_instead_of_importing():
    assert runpy.run_path(str(ROOT / 'tools/draw.py'))['REDUCTIONS'] == tuple(REDUCTIONS)
