"""Runs as forks, without training."""

import os
import time

import pytest
import torch

from mmkd_plugin.experiments import Fork

pytestmark = pytest.mark.skipif(torch.cuda.is_initialized(), reason='forks cannot use a GPU')
COMMAND = ['python', '-W', 'ignore', 'tools/train.py', 'config.py', '--resume']


def ended(fork, seconds=20):
    until = time.monotonic() + seconds
    while (found := fork.ended()) is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


def start(tmp_path, train, **environment):
    return Fork(COMMAND, tmp_path / 'train.log', {'OMP_NUM_THREADS': '1', **environment}, train)


def test_arguments_environment_and_output(tmp_path):
    def train(arguments):
        print(arguments, os.environ['WHERE'], torch.get_num_threads(), os.getpid() == os.getpgid(0))

    (tmp_path / 'train.log').write_text('before\n')
    found = ended(start(tmp_path, train, WHERE='there'))
    assert (tmp_path / 'train.log').read_text() == "before\n['config.py', '--resume'] there 1 True\n"
    assert found.code == 0
    assert 'WHERE' not in os.environ


def test_failures(tmp_path):
    def train(arguments):
        raise ValueError('what is wrong')

    def leave(arguments):
        raise SystemExit('another run is using it')

    def die(arguments):
        os.kill(os.getpid(), 9)

    assert ended(start(tmp_path, train)).code == 1
    assert (tmp_path / 'train.log').read_text().endswith('ValueError: what is wrong\n')
    assert ended(start(tmp_path, leave)).code == 1
    assert (tmp_path / 'train.log').read_text().endswith('another run is using it\n')
    assert ended(start(tmp_path, die)).code == -9


def test_stop_ends_it(tmp_path):
    fork = start(tmp_path, lambda arguments: time.sleep(60))
    assert fork.ended() is None
    fork.stop()
    assert ended(fork).code in (-15, -9)
    fork.stop()


def test_a_process_that_uses_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    with pytest.raises(RuntimeError, match='has used a GPU, and forks of it cannot'):
        start(tmp_path, print)
