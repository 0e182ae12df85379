"""Trying a command without running it: its own parser reads its arguments, and the files that it names are there."""

import argparse
import importlib.util
import io
import re
import runpy
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from mmengine.config import Config

from mmkd_plugin.command import DOCTOR, find_tools
from tests.documented.blocks import ROOT

#: Nothing of ours, and harmless.
OTHERS = ('source', 'cd', 'git', 'pip', 'mim', 'torchrun', 'ls', 'export', 'srun', 'tensorboard')


class _Parsed(Exception):  # noqa: N818 (no error)
    """The arguments were read; what would follow is left out."""


def lines_of(code: str) -> list[list[str]]:
    """The words of each command; comments, continuations, prompts and variables before it are gone."""
    commands = []
    for line in code.replace('\\\n', ' ').splitlines():
        words = shlex.split(line.strip().removeprefix('$ '), comments=True)
        while words and re.fullmatch(r'[A-Z_]+=\S*', words[0]):
            words.pop(0)
        if words:
            commands.append(words)
    return commands


def check_command(words: list[str]) -> None:
    """Raise if the command would not begin.

    Raises:
        ValueError: If a tool, an option, a target or a file of this checkout is not there.
    """
    words = words[: words.index('|')] if '|' in words else words
    program, arguments = words[0], words[1:]
    if program.endswith(('python', 'python3')):
        _check_python(arguments)
    elif program == 'make':
        _check_make(arguments)
    elif program == 'mmkd':
        _check_mmkd(arguments)
    elif program.endswith('.sh'):
        if not (ROOT / program).is_file():
            raise ValueError(f'{program} is not there')
        if 'slurm' in program:  # partition and name of the job; config and folder are words of their own
            arguments = [*arguments[2:3], *arguments[4:]]
        _check_arguments('tools/test.py' if 'test' in program else 'tools/train.py', _without_numbers(arguments))
    elif program not in OTHERS:
        raise ValueError(f'{program!r} is no command that can be checked; put <!-- not run: why --> above the fence')
    for word in words:
        if re.fullmatch(r'(configs|tools|docs)/[\w./-]+\.(py|sh|md)', word) and not (ROOT / word).exists():
            raise ValueError(f'{word} is not there')


def _check_python(arguments: list[str]) -> None:
    if arguments[:1] == ['-m']:
        if importlib.util.find_spec(arguments[1]) is None:
            raise ValueError(f'there is no module {arguments[1]}')
    elif arguments[0].startswith('tools/'):
        _check_arguments(arguments[0], arguments[1:])
    elif arguments[0] != '-c':
        raise ValueError(f'python {arguments[0]} is no tool of this checkout')


def _check_mmkd(arguments: list[str]) -> None:
    tool = find_tools().get(arguments[0].replace('-', '_'))
    if tool is not None and tool.suffix == '.py':
        _check_arguments(f'tools/{tool.name}', arguments[1:])
    elif tool is None and arguments[0] not in (DOCTOR, '--help', '--version'):
        raise ValueError(f'mmkd knows no {arguments[0]}')


def _without_numbers(arguments: list[str]) -> list[str]:
    """Of the shell scripts, which take the number of GPUs as a word of its own."""
    return [word for word in arguments if not word.isdigit()]


def _check_make(arguments: list[str]) -> None:
    text = (ROOT / 'Makefile').read_text()
    for word in arguments:
        name, equals, _ = word.partition('=')
        there = rf'^(#   )?{name}\??=|^{name} \?=' if equals else rf'^{name}:'
        if not re.search(there, text, re.M):
            raise ValueError(f'make knows no {word}')


def _check_arguments(tool: str, arguments: list[str]) -> None:
    """Let the tool's own parser read them."""
    if not (ROOT / tool).is_file():
        raise ValueError(f'{tool} is not there')
    known: dict[str, Any] = {}
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: Any, args: Any = None, namespace: Any = None) -> Any:
        known.update(vars(parse(parser, arguments)))
        raise _Parsed

    said = io.StringIO()
    with (
        mock.patch.object(argparse.ArgumentParser, 'parse_args', stop),
        mock.patch.object(sys, 'argv', [tool, *arguments]),
        mock.patch.object(sys, 'path', [str(ROOT / 'tools'), *sys.path]),
        redirect_stderr(said),
        redirect_stdout(io.StringIO()),
    ):
        try:
            runpy.run_path(str(ROOT / tool), run_name='__main__')
        except _Parsed:
            pass
        except SystemExit as error:
            if error.code:
                raise ValueError(f'{tool} {" ".join(arguments)}: {said.getvalue() or error.code}') from error
    if isinstance(options := known.get('cfg_options'), dict) and Path(str(known.get('config'))).is_file():
        _check_options(str(known['config']), options)


def _check_options(config: str, options: dict[str, Any]) -> None:
    """Options change what the config has."""
    cfg = Config.fromfile(ROOT / config)
    for key in options:
        inside: Any = cfg
        *path, _ = key.split('.')
        for name in path:
            inside = inside[int(name)] if isinstance(inside, list) else inside.get(name)
            if inside is None:
                raise ValueError(f'--cfg-options {key}: {config} has no {name}')
    cfg.merge_from_dict(options)
