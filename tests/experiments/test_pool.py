"""Several runs at once, without training: scripts of a few lines stand for `tools/train.py`."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from mmkd_plugin.experiments import Pool, Run, Screen, pool
from mmkd_plugin.experiments.pool import Command, Ended, gpu_of, progress, seconds_left
from tests.experiments.helpers import finished, log, run, trained, validated

LINE = '01/01 - mmengine - INFO - Epoch(train)  [ 3][13/13]  lr: 8.7e-03  eta: 1 day, 0:00:12  time: 0.0258\n'


class Fake:
    """A run that ends at once: with the code in ``codes``, by name and seed, or never, for None."""

    def __init__(self, codes=()):
        self.codes = dict(codes)
        self.started = []
        self.at_once = self.most = 0
        self.stopped = []

    def __call__(self, command, file, environment):
        folder = Path(command[command.index('--work-dir') + 1])
        who = f'{folder.parent.name}{folder.name[-1]}'
        self.started.append((who, '--resume' in command))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        assert command[-1] == f'randomness.seed={folder.name[-1]}'
        assert environment['OMP_NUM_THREADS'] == '3'
        code = self.codes.get(who, 0)
        if code == 0:
            self.report(folder)
        file.write_text('INFO\nKeyError: 1\n    ValueError: what is wrong\nlast words\n')
        return self._Process(self, who, code)

    def report(self, folder):
        log(folder, trained(1), trained(2), validated(50.0, 1))

    class _Process:
        def __init__(self, owner, who, code):
            self.owner, self.who, self.code = owner, who, code

        def ended(self):
            if self.code is None:
                return None
            self.owner.at_once -= 1
            return Ended(self.code, 123.0)

        def stop(self):
            self.owner.stopped.append(self.who)


def train(fake, runs, jobs=1, after=lambda run: None):
    Pool(Path('train.py'), ['x=1'], jobs, 3, Screen(), fake).train(runs, {'a': {'student': 1, 'beside': 0}}, after)


def some(folder):
    return [run(folder, name, seed) for seed in range(2) for name in ('a', 'b')]


def test_order_jobs_and_results(tmp_path, capsys):
    fake = Fake()
    ended: list[Run] = []
    train(fake, some(tmp_path), jobs=2, after=ended.append)
    assert [who for who, _ in fake.started] == ['a0', 'b0', 'a1', 'b1']
    assert fake.most == 2
    assert len(ended) == 4
    for one in some(tmp_path):
        assert one.result.metrics == {'accuracy/top1': 50.0}
        assert (one.result.memory, one.result.jobs, one.result.threads, one.result.on_gpu) == (123.0, 2, 3, False)
        assert one.result.parameters == ({'student': 1, 'beside': 0} if one.entry.name == 'a' else {})
    assert 'a, seed 0: done in 0 s, accuracy/top1 50' in capsys.readouterr().out
    again = Fake()
    train(again, some(tmp_path), jobs=2)
    assert not again.started


def test_one_that_fails_stops_no_other_and_is_tried_again(tmp_path, capsys):
    runs = some(tmp_path)
    train(Fake({'b0': 1, 'b1': -9}), runs)
    assert [one.failure for one in runs] == [None, 'KeyError: 1', None, 'ended by signal SIGKILL']
    assert f'b, seed 0: FAILED after 0 s: KeyError: 1; the log is {runs[1].log}' in capsys.readouterr().out
    (runs[1].folder / 'iter_9.pth').touch()
    (runs[1].folder / 'iter_10.pth').touch()
    again = Fake()
    train(again, some(tmp_path))
    assert again.started == [('b0', True), ('b1', False)]
    assert 'b, seed 0: goes on from iter_10.pth' in capsys.readouterr().out
    assert all(one.result and one.failure is None for one in some(tmp_path))


def test_interrupted(tmp_path):
    """Others are ended, and nothing is called failed."""
    fake = Fake({'b0': None})

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fake, some(tmp_path), jobs=2, after=interrupt)
    assert fake.stopped == ['b0']
    assert [(bool(one.result), one.failure) for one in some(tmp_path)] == [
        (True, None),
        (False, None),
        *[(False, None)] * 2,
    ]


def test_a_run_killed_before_its_last_validation_makes_up_for_it(tmp_path):
    """mmengine ends a run that is resumed at its end without a word; so it is resumed one checkpoint earlier."""
    one = run(tmp_path, 'a')
    log(one.folder, trained(1), validated(40.0, 1), trained(2))
    one.begin()
    for epoch in (1, 2):
        (one.folder / f'epoch_{epoch}.pth').touch()

    class Resumed(Fake):
        """Does nothing at first, as mmengine, and then what is left."""

        def report(self, folder):
            if len(self.started) > 1:
                log(folder, trained(2), validated(60.0, 2), attempt='20270101')

    fake = Resumed()
    train(fake, [one])
    assert len(fake.started) == 2
    assert not (one.folder / 'epoch_2.pth').exists()
    assert one.result.metrics == {'accuracy/top1': 60.0}
    assert one.result.seconds is None


def test_time_left():
    known = {'a': [10.0, 20.0], 'b': [30.0]}
    assert seconds_left({}, ['a'], [], 2) is None
    assert seconds_left(known, [], [], 2) == 0
    assert seconds_left(known, ['a', 'b'], [], 1) == 45
    assert seconds_left(known, ['a', 'b', 'c'], [('a', 5.0)], 2) == pytest.approx((15 + 30 + 20 + 10) / 2)
    assert seconds_left(known, [], [('b', 1.0), ('a', 100.0)], 2) == 29  # the longest that is left


def test_progress(tmp_path):
    file = tmp_path / 'train.log'
    assert progress(file) == ''
    file.write_text('nothing\n' + LINE.replace('[ 3]', '[ 2]') + LINE + 'Epoch(val) [3][4/4]\n')
    assert progress(file) == 'epoch 3, eta 1 day, 0:00:12'
    file.write_text('Iter(train) [ 100/4000]  lr: 1e-2  eta: 0:01:02  time: 1\n')
    assert progress(file) == 'iteration 100, eta 0:01:02'


def test_states_on_a_terminal_and_in_a_file(capsys, monkeypatch):
    Screen(seconds=0).show(lambda: 'state')
    Screen().show(lambda: 'too early')
    assert capsys.readouterr().out == 'state\n'
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    screen = Screen(seconds=0)
    screen.show(lambda: 'a state')
    screen.show(lambda: 'one')
    screen.say('event')
    assert capsys.readouterr().out == '\ra state\rone    \r   \revent\n'


def test_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    assert gpu_of(1, None) == {}
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert [gpu_of(place, None)['CUDA_VISIBLE_DEVICES'] for place in range(3)] == ['0', '1', '0']
    assert [gpu_of(place, '4,6')['CUDA_VISIBLE_DEVICES'] for place in range(3)] == ['4', '6', '4']


def alive(process):
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def until(what):
    deadline = time.monotonic() + 20
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_a_command_ends_and_is_ended(tmp_path):
    file = tmp_path / 'log'
    big = [sys.executable, '-c', "import time; x = bytearray(100 << 20); print('done'); time.sleep(0.5); exit(3)"]
    process = Command(big, file, dict(os.environ))
    ended = until(process.ended)
    assert ended.code == 3
    assert 100 < ended.memory < 200
    assert file.read_text() == 'done\n'

    # one that starts another, as data workers are, and neither wants to end
    stubborn = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; while true; do sleep 0.05; done' & wait; wait"
    pool._GRACE, grace = 0.2, pool._GRACE
    try:
        process = Command(['sh', '-c', stubborn], file, dict(os.environ))
        until(lambda: len(file.read_text().split()) == 2)
        process.stop()
    finally:
        pool._GRACE = grace
    assert until(process.ended).code == -signal.SIGKILL
    until(lambda: not alive(int(file.read_text().split()[1])))


def test_what_is_finished_is_left_alone(tmp_path):
    runs = finished(tmp_path, 'a', [1.0, 2.0])
    fake = Fake()
    train(fake, runs)
    assert not fake.started
