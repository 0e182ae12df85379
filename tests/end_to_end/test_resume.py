"""A killed run goes on exactly where it was."""

import pytest
import torch

from mmkd_plugin.files.checkpoint import read_checkpoint
from tests.end_to_end.helpers import Forked, forked, options, tiny_options, train_here
from tests.end_to_end.test_checkpoints import holds_no_teacher, load_strictly

pytestmark = [pytest.mark.openmmlab]
EPOCHS = 4


CONFIG, TINY = 'configs/dkd_resnet.py', tiny_options(EPOCHS, log_level='INFO')


def arguments(work_dir, *more):
    return ['tools/train.py', CONFIG, '--work-dir', work_dir, *more, *options(TINY)]


def test_sigkill_and_resume_equals_the_uninterrupted_run(tmp_path):
    """Killed in the third epoch."""
    train_here(CONFIG, tmp_path / 'whole', **TINY)
    Forked(*arguments(tmp_path / 'killed')).kill_when(tmp_path / 'killed/epoch_2.pth')
    assert not (tmp_path / 'killed' / f'epoch_{EPOCHS}.pth').exists()
    output = forked(*arguments(tmp_path / 'killed', '--resume')).stdout
    assert 'resumed epoch: ' in output.lower()
    a, b = (read_checkpoint(str(tmp_path / name / f'epoch_{EPOCHS}.pth'))['state_dict'] for name in ('whole', 'killed'))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    load_strictly(b)
    assert holds_no_teacher(b)


def test_amp_on_a_cpu_is_told(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    done = forked(*arguments(tmp_path, '--amp'), check=False)
    assert done.returncode != 0
    assert '--amp' in done.stdout
    assert 'needs a GPU' in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_amp_on_a_gpu(tmp_path):
    output = forked(*arguments(tmp_path, '--amp')).stdout
    assert 'accuracy/top1' in output
    assert 'nan' not in output
