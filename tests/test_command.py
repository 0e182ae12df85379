"""`mmkd` as a process would see it; `tests/test_installed.py` really starts it."""

import os
import sys

import pytest

from mmkd_plugin import command
from mmkd_plugin.files.configs import config_path
from tests.end_to_end.helpers import ROOT, parse

TOOLS = ROOT / 'tools'


class Replaced(Exception):  # noqa: N818 (no error)
    """What would have been executed."""


@pytest.fixture
def executed(monkeypatch):
    """Runs `main`, and gives the command that it would become."""
    monkeypatch.setenv('PYTHON', 'another')

    def replace(file, arguments):
        assert file == arguments[0]
        raise Replaced(arguments)

    monkeypatch.setattr(os, 'execvp', replace)

    def run(*arguments):
        with pytest.raises(Replaced) as replaced:
            command.main(arguments)
        return replaced.value.args[0]

    return run


def test_a_tool_gets_its_arguments(executed):
    assert executed('train', 'x.py', '--amp') == [sys.executable, str(TOOLS / 'train.py'), 'x.py', '--amp']
    assert executed('list-modules', '--help') == [sys.executable, str(TOOLS / 'list_modules.py'), '--help']


def test_shell_scripts_take_the_python_that_runs(executed):
    assert executed('dist_train', 'x.py', '2') == ['bash', str(TOOLS / 'dist_train.sh'), 'x.py', '2']
    assert os.environ['PYTHON'] == sys.executable
    for script in TOOLS.glob('*.sh'):
        assert '"${PYTHON:-python}" -' in script.read_text()


def test_the_doctor_is_one_of_them(executed):
    assert executed('doctor') == [sys.executable, '-m', 'mmkd_plugin.doctor']


def test_help_lists_every_tool_and_what_it_does(capsys):
    for arguments in (['--help'], ['-h']):
        with pytest.raises(SystemExit) as end:
            command.main(arguments)
        assert end.value.code == 0
        said = capsys.readouterr().out
        assert '\n  train                Train a model: ' in said
        assert '\n  dist_test            Evaluate with several processes\n' in said
        assert '\n  doctor ' in said
        assert 'arguments ' not in [line.split()[0] for line in said.splitlines() if line[:2] == '  ']
    named = command.find_tools()
    assert not {'arguments', 'common_losses', 'benchmark_machine'} & set(named)
    assert all(command.told(path) for path in named.values())


def test_shell_scripts_answer_as_well(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(['dist_train', '--help'])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith('Train with several processes')


@pytest.mark.parametrize(
    ('name', 'message'), [('trian', 'did you mean train?'), ('xyzzy', 'mmkd --help lists'), ('-v', 'no tool')]
)
def test_what_is_not_there(name, message):
    with pytest.raises(SystemExit, match=message.replace('?', r'\?')):
        command.main([name])


def test_the_package_is_imported_as_ever_by_others(monkeypatch):
    """Only a script `bin/mmkd` gets a package that holds nothing."""
    for first, light in (('/env/bin/mmkd', True), ('/home/me/mmkd', False), ('train.py', False), ('-c', False)):
        monkeypatch.setattr(sys, 'orig_argv', ['python', first])
        text = (ROOT / 'mmkd_plugin' / '__init__.py').read_text()
        condition = next(line for line in text.splitlines() if line.startswith('if ')).removeprefix('if ').rstrip(':')
        assert eval(condition, {'_given': sys.orig_argv}) is not light


@pytest.mark.openmmlab
def test_configs_of_packages_have_names():
    ours = config_path('dkd_resnet.py')
    assert parse('train.py', 'mmkd_plugin::dkd_resnet.py').config == ours
    zoo = parse('test.py', 'mmpretrain::resnet/resnet18_8xb32_in1k.py', 'x.pth').config
    assert zoo.endswith('mmpretrain/.mim/configs/resnet/resnet18_8xb32_in1k.py')
    assert parse('chain.py', 'mmkd_plugin::dkd_resnet.py').configs == [ours]
    compared = parse('compare.py', 'mmkd_plugin::dkd_resnet.py', '--plain', 'mmkd_plugin::digits/resnet_student.py',
                     '--name', 'mmkd_plugin::dkd_resnet.py=DKD')  # fmt: skip
    plain = config_path('digits/resnet_student.py')
    assert (compared.configs, compared.plain, compared.name) == ([plain, ours], plain, {ours: 'DKD'})
    stored = parse('precompute.py', 'mmkd_plugin::digits/kd_store_resnet.py').config
    assert stored == config_path('digits/kd_store_resnet.py')


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('mmkd_plugin::no.py', r"'mmkd_plugin::no.py' does not exist \(looked at .*configs/no.py"),
        ('no_such::x.py', "there is no package 'no_such'"),
        ('::x.py', "there is no package ''"),
        ('a.b::x.py', "there is no package 'a.b'"),
        ('argparse::x.py', "there is no package 'argparse'"),
    ],
)
def test_configs_of_packages_that_are_not_there(name, message):
    with pytest.raises(SystemExit, match=message):
        parse('train.py', name)
