"""A killed run goes on exactly where it was."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mmkd_plugin.files.checkpoint import read_checkpoint
from tests.end_to_end.helpers import ROOT, command, environment, options, tiny_options
from tests.end_to_end.test_checkpoints import holds_no_teacher, load_strictly

pytestmark = [pytest.mark.openmmlab]
EPOCHS = 4


def arguments(work_dir, *more):
    return [
        'tools/train.py', 'configs/dkd_resnet.py', '--work-dir', str(work_dir), *more,
        *options(tiny_options(EPOCHS, log_level='INFO')),
    ]  # fmt: skip


def kill_after(work_dir, epoch):
    """Start training, and SIGKILL it as soon as a checkpoint is announced, in the next epoch."""
    process = subprocess.Popen(
        [sys.executable, *arguments(work_dir)], cwd=ROOT, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not (work_dir / f'epoch_{epoch}.pth').exists():
        assert process.poll() is None, 'training ended before it could be killed'
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_sigkill_and_resume_equals_the_uninterrupted_run(tmp_path):
    command(*arguments(tmp_path / 'whole'))
    kill_after(tmp_path / 'killed', 2)
    assert not (tmp_path / 'killed' / f'epoch_{EPOCHS}.pth').exists()
    output = command(*arguments(tmp_path / 'killed', '--resume')).stdout
    assert 'resumed epoch: ' in output.lower()
    a, b = (read_checkpoint(str(tmp_path / name / f'epoch_{EPOCHS}.pth'))['state_dict'] for name in ('whole', 'killed'))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    load_strictly(b)
    assert holds_no_teacher(b)


def test_amp_on_a_cpu_is_told(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    done = command(*arguments(tmp_path, '--amp'), check=False)
    assert done.returncode != 0
    assert '--amp' in done.stdout
    assert 'needs a GPU' in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_amp_on_a_gpu(tmp_path):
    output = command(*arguments(tmp_path, '--amp')).stdout
    assert 'accuracy/top1' in output
    assert 'nan' not in output
