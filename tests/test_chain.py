"""`tools/chain.py` on tiny runs of a few digits: what it makes, and what it does when it is called again."""

import importlib
import json
import shutil
import subprocess
import sys
import time

import pytest
import torch

from mmkd_plugin.experiments import pool
from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import ROOT, options, tiny_options, train_here
from tests.processes import ForkedCommand, environment
from tests.test_compare import free

pytestmark = [pytest.mark.openmmlab]
AUXILIARY, STUDENT = config_path('digits/flow_auxiliary_resnet.py'), config_path('digits/flow_resnet.py')


def tiny(epochs, **more):
    return options(tiny_options(epochs, **{'log_level': 'INFO', 'default_hooks.logger.interval': 2, **more}))


@pytest.fixture
def chain(monkeypatch, capsys):
    """Runs the tool with forks, and gives its exit code, what it said, and the names of the links that were begun."""
    monkeypatch.syspath_prepend(ROOT / 'tools')
    monkeypatch.setattr(pool, 'Command', ForkedCommand)
    monkeypatch.setattr(ForkedCommand, 'started', [])

    def run(*arguments):
        ForkedCommand.started.clear()
        code = importlib.import_module('chain').main([str(argument) for argument in arguments])
        begun = [command[command.index('--work-dir') + 1].split('/')[-1] for command in ForkedCommand.started]
        return code, capsys.readouterr().out, begun

    return run


def test_a_chain_and_what_is_left_of_it(chain, tmp_path):
    def go(*more):
        return chain(AUXILIARY, STUDENT, '--work-dir-root', tmp_path, *more, *tiny(1))

    names = ['flow_auxiliary_resnet', 'flow_resnet']
    code, said, begun = go()
    assert (code, begun) == (0, names)
    assert f'link 2 of 2, flow_resnet, is in {tmp_path / "flow_resnet"}' in said
    log = (tmp_path / 'flow_resnet/train.log').read_text()
    # the last checkpoint of the link before it, whose run is shorter than its config says
    assert f"checkpoint='{tmp_path / 'flow_auxiliary_resnet/epoch_1.pth'}'" in log
    assert 'teacher/accuracy/top1' in log
    header, *rows = (line for line in said.splitlines() if line.startswith('| '))
    assert header == '| model | accuracy/top1 (%), last epoch | parameters | trained beside | from |'
    cells = [[cell.strip() for cell in row.strip('|').split('|')] for row in rows[1:]]
    assert [cell[0] for cell in cells] == names
    results = [json.loads((tmp_path / name / 'run.json').read_text())['result'] for name in names]
    reached = [one['metrics']['accuracy/top1'] for one in results]
    assert [float(cell[1]) for cell in cells] == pytest.approx(reached, abs=0.01)
    assert [cell[2:] for cell in cells] == [['176,258', '0', ''], ['44,550', '0', 'flow_auxiliary_resnet']]

    # what is finished is not trained again, and the table can be had at any time
    code, said_again, begun = go()
    assert (code, begun) == (0, [])
    assert said[said.index('| model') :] == said_again[said_again.index('| model') :]

    with pytest.raises(SystemExit, match=r'other options: randomness.seed: 0 there, 1 now. Remove that folder'):
        go('--seed', 1)
    shutil.rmtree(tmp_path / 'flow_auxiliary_resnet')
    with pytest.raises(SystemExit, match=r"flow_resnet' was trained with what flow_auxiliary_resnet had left"):
        go()


def weights(run, epochs):
    checkpoint = read_checkpoint(run / f'epoch_{epochs}.pth')
    return checkpoint['state_dict'], checkpoint['optimizer']


def test_a_chain_of_one_link_is_kd(chain, tmp_path):
    code, _, begun = chain(config_path('kd_resnet.py'), '--work-dir-root', tmp_path, *tiny(2))
    assert (code, begun) == (0, ['kd_resnet'])
    train_here('configs/kd_resnet.py', tmp_path / 'alone', **tiny_options(2, **{'randomness.seed': 0}))
    found, expected = weights(tmp_path / 'kd_resnet', 2), weights(tmp_path / 'alone', 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_chain_that_ended_between_links_goes_on(chain, tmp_path):
    for root, links in (('whole', [AUXILIARY, STUDENT]), ('part', [AUXILIARY])):
        assert chain(*links, '--work-dir-root', tmp_path / root, *tiny(1))[0] == 0
    code, said, begun = chain(AUXILIARY, STUDENT, '--work-dir-root', tmp_path / 'part', *tiny(1))
    assert (code, begun) == (0, ['flow_resnet'])
    assert 'link 1 of 2, flow_auxiliary_resnet, was finished before' in said
    for name in ('flow_auxiliary_resnet', 'flow_resnet'):
        found, expected = weights(tmp_path / 'part' / name, 1), weights(tmp_path / 'whole' / name, 1)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_link_that_fails_ends_the_chain(chain, tmp_path):
    code, said, begun = chain(
        AUXILIARY, STUDENT, '--work-dir-root', tmp_path, *tiny(1, **{'model.losses.loss_flow.on': 'nowhere'})
    )
    assert (code, begun) == (1, ['flow_auxiliary_resnet'])
    assert 'flow_auxiliary_resnet, seed 0: FAILED' in said
    assert f'the log is {tmp_path / "flow_auxiliary_resnet/train.log"}' in said
    assert 'no table: no run is finished yet' in said


def test_a_killed_chain_goes_on(chain, tmp_path):
    """Killed, it takes its link with it; called again, that goes on from its last checkpoint, and the others follow."""
    given = [AUXILIARY, STUDENT, '--work-dir-root', str(tmp_path), *tiny(12)]
    run = tmp_path / 'flow_auxiliary_resnet'
    with subprocess.Popen([sys.executable, 'tools/chain.py', *given], cwd=ROOT, env=environment()) as tool:
        deadline = time.monotonic() + 200
        while not (run / 'epoch_2.pth').exists():
            assert tool.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(SystemExit, match='another run is using the work folder'):
            chain(*given)
        tool.kill()
    while not free(run):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (run / 'epoch_12.pth').exists()
    code, said, begun = chain(*given)
    assert (code, begun) == (0, ['flow_auxiliary_resnet', 'flow_resnet'])
    assert 'flow_auxiliary_resnet, seed 0: goes on from epoch_' in said
    assert 'flow_resnet, seed 0: begins' in said
    assert (tmp_path / 'flow_resnet/epoch_12.pth').exists()


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ([AUXILIARY, 'none.py'], "config 'none.py' does not exist (looked at "),
        ([], 'the following arguments are required: CONFIG'),
        ([AUXILIARY, '--threads', '0'], '--threads 0 given, expected at least 1'),
        ([AUXILIARY, '--cfg-options', 'x'], '--cfg-options x given, expected KEY=VALUE'),
    ],
)
def test_slips(chain, capsys, arguments, said):
    with pytest.raises(SystemExit):
        chain(*arguments)
    assert said in capsys.readouterr().err
