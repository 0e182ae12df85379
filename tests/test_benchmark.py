"""`tools/benchmark.py`: what fails, hangs or cannot run is named, and the report is there after every part."""

import dataclasses
import json
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.processes import ROOT, environment

TABLE = 'print("before"); print("| a | b |"); print("| --- | --- |"); print("| 1 | 2 |")'
STEP = """
print('x.py: 28 px, batch 4, AMP off, CPU, 1 threads, torch 2, 2 interleaved rounds; median (min to max)')
print('a  plain student step      8.3 (8.2 to 8.4) ms')
print('b  other networks alone    4.3 (4.3 to 4.4) ms')
print('c  distillation step       12.6 (12.4 to 12.8) ms')
print('c / (a + b)                1.000 (0.980 to 1.010)')
"""


@pytest.fixture(scope='module')
def tool() -> Any:
    """The names that the script defines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'tools')
        return SimpleNamespace(**runpy.run_path(str(ROOT / 'tools/benchmark.py')))


@pytest.fixture
def make(tool):
    def part(code, name='a-part', **more):
        return tool.Part(name, f'The {name}', ('-c', code), **more)

    return part


def machine(tool, **lacks):
    return tool.Machine({'CPU': 'one', 'cores': '2 of 2'}, lacks)


def test_figures_stand_in_one_table(tool, make):
    results = [tool.run(make(STEP, 'step-x'), 60), tool.run(make(TABLE, 'table'), 60)]
    assert [result.state for result in results] == ['done', 'done']
    text = tool.report(machine(tool), results, 12.3)
    assert (
        '| The step-x | 4 | off | 8.3 (8.2 to 8.4) | 4.3 (4.3 to 4.4) | 12.6 (12.4 to 12.8) | 1.000 (0.980 to 1.010) |'
        in text
    )
    assert '```text\nbefore\n```\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n' in text
    assert '| CPU | one |' in text
    assert 'to come' not in text
    assert '2 parts are to come' in tool.report(machine(tool), results, 1.0, 2)


def test_the_step_benchmark_prints_what_is_read(tool):
    """The real output, at a tiny size."""
    command = 'tools/benchmark_step.py', 'configs/kd_resnet.py', '--image-size', '28', '--batch-size', '2'
    more = '--rounds', '1', '--warmup', '0', '--steps', '2', '--device', 'cpu', '--no-memory'
    found = tool.FIGURES.search(tool.run(tool.Part('x', 'X', (*command, *more)), 120).text)
    assert found['batch'] == '2'
    assert found['amp'] == 'off'
    assert float(found['ratio'].split()[0]) > 0


def test_what_fails_is_named_with_the_end_of_its_error(tool, make):
    result = tool.run(
        make('print("so far"); import sys; print("no" * 3, file=sys.stderr); raise ValueError("wrong")'), 60
    )
    assert result.state == 'failed'
    text = tool.report(machine(tool), [result], 1.0)
    assert '**Failed**' in text
    assert text.index('exit code 1') < text.index('\nso far') < text.index('nonono') < text.index('ValueError: wrong')


def test_what_hangs_is_ended_with_what_it_started(tool, make, tmp_path):
    started = (
        'import subprocess, sys; child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"]); '
    )
    code = f'{started}open({str(tmp_path / "pid")!r}, "w").write(str(child.pid)); print("half"); child.wait()'
    result = tool.run(make(code), 3)
    assert result.state == 'out of time'
    assert result.text == 'half'
    assert 2.5 < result.took < 20
    gone = Path('/proc') / (tmp_path / 'pid').read_text() / 'stat'
    time.sleep(0.2)
    assert not gone.exists() or ') Z' in gone.read_text()


def test_what_lacks_something_is_left_out(tool, make):
    here = machine(tool, mmdet='ModuleNotFoundError: mmdet')
    assert tool.lacking(make('', needs=('torch', 'mmdet')), here) == 'needs mmdet (ModuleNotFoundError: mmdet)'
    assert tool.lacking(make('', needs=('torch',)), here) == ''
    text = tool.report(here, [tool.Result(make(''), 'left out', 'needs a hand')], 1.0)
    assert '## Left out\n\n- The a-part (`a-part`): needs a hand' in text


def test_no_paths_of_the_machine(tool, make):
    shown = tool.run(make('import sys; print(sys.prefix + "/lib"); import os; print(os.getcwd() + "/tools")'), 60).text
    assert shown == 'PYTHON/lib\ntools'


@pytest.mark.parametrize('gpu', [False, True])
def test_parts(tool, gpu):
    known = tool.parts(gpu)
    names = [part.name for part in known]
    assert len(set(names)) == len(names)
    assert ('gpu-tests' in names) == gpu
    asked = {need for part in known for need in part.needs}
    assert asked <= set(tool.look.__globals__['NEEDS'])
    for part in known:
        files = [argument for argument in part.command if argument.endswith('.py')]
        assert files
        assert all((ROOT / file).is_file() for file in files), files
    if gpu:
        (tests,) = (part for part in known if part.name == 'gpu-tests')
        assert {'tests/end_to_end/test_gpu.py', 'tests/teachers/test_frozen.py'} <= set(tests.command)
    assert {part.name for part in tool.chosen(known, ['dense-cw', 'crd'])} == {'dense-cwd', 'crd'}
    with pytest.raises(SystemExit, match='--only nothing given'):
        tool.chosen(known, ['nothing', 'crd'])


def test_the_configs_that_are_made_build(tool, tmp_path, make):
    from mmengine.config import Config

    made = [part for part in tool.parts(False) if part.config]
    assert len(made) == 6
    for part in made:
        (tmp_path / 'x.py').write_text(part.config)
        assert len(Config.fromfile(tmp_path / 'x.py').model.losses) == 1
        assert not dataclasses.replace(part, config='').config


def command(*args, **more):
    return [sys.executable, '-W', 'ignore', 'tools/benchmark.py', *map(str, args)]


def test_the_command(tmp_path):
    """Written after every part; what the time does not suffice for is named."""
    out = tmp_path / 'new/report.md'
    done = subprocess.run(
        command('--only', 'valuation', 'crd', '--budget', 14, '--out', out), cwd=ROOT, env=environment(),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    text = out.read_text()
    assert '| torch |' in text
    assert '| CPU |' in text
    assert 'of --budget were spent' in done.stdout + text
    assert '`crd`' in text or 'benchmark_crd.py' in text
    assert 'to come' not in text
    assert [path.name for path in out.parent.iterdir()] == ['report.md']


def test_ended_in_the_middle_it_ends_what_runs(tmp_path):
    process = subprocess.Popen(command('--only', 'losses', '--out', tmp_path / 'r.md'), cwd=ROOT, env=environment())
    try:
        children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
        deadline = time.monotonic() + 90
        while not (pid := next((p for p in children.read_text().split() if b'benchmark_losses' in _line(p)), None)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert not Path(f'/proc/{pid}').exists()
        assert 'Ended by its limit' in (tmp_path / 'r.md').read_text()
    finally:
        process.kill()


def _line(pid):
    try:
        return Path(f'/proc/{pid}/cmdline').read_bytes()
    except OSError:
        return b''


def test_a_machine_without_packages(tool, monkeypatch, tmp_path):
    """Everything is found to be lacking, with the reason, and nothing raises."""
    (tmp_path / 'torch.py').write_text('raise ImportError("broken torch")')
    (tmp_path / 'mmpretrain.py').write_text('import os; os._exit(3)')
    monkeypatch.setitem(tool.look.__globals__, 'search_path', lambda: [str(tmp_path), str(ROOT / 'tools')])
    lacks = tool.look().lacks
    assert lacks['torch'] == 'ImportError: broken torch'
    assert lacks['mmpretrain'] == 'the process that looked ended with 3'
    assert (
        'ModuleNotFoundError' in lacks["mmcv's compiled operations"] or 'broken' in lacks["mmcv's compiled operations"]
    )
    assert not tool.look().gpu


def test_a_slow_machine_is_believed_to_have_all_but_gpus(tool, monkeypatch, tmp_path):
    (tmp_path / 'torch.py').write_text('import time; time.sleep(60)')
    monkeypatch.setitem(tool.look.__globals__, 'search_path', lambda: [str(tmp_path), str(ROOT / 'tools')])
    assert set(tool.look(1.0).lacks) == {'a GPU', 'two GPUs'}


def test_what_is_asked_is_answered_on_a_machine_with_a_gpu(tool, monkeypatch, capfd):
    """Its names once took the place of the questions."""
    torch = pytest.importorskip('torch')
    properties = SimpleNamespace(total_memory=2**30)
    for name, value in {
        'is_available': True, 'device_count': 2, 'get_device_name': 'a card', 'get_device_properties': properties,
        'get_device_capability': (9, 0),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.distributed, 'is_nccl_available', lambda: False)
    tool.look.__globals__['_answer'](['torch', 'pytest'])
    facts, *answers = map(json.loads, capfd.readouterr().out.splitlines())
    assert facts['facts']['GPU'].startswith('2 × a card')
    assert [answer['need'] for answer in answers] == ['torch', 'pytest']
