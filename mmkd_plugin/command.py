"""`mmkd TOOL …`: the tools, wherever the package is installed.

They are those of a checkout's `tools/`, which an installed package has in `.mim/tools/`, where `mim` looks for them.
This imports only the standard library, and `mmkd_plugin/__init__.py` nothing else for it: tools read their arguments
before they import what takes seconds, and the doctor has to work where such imports fail.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .version import __version__

FOLDER = (Path(__file__).parent / '.mim' / 'tools').resolve()
DOCTOR = 'doctor'


def find_tools(folder: Path = FOLDER) -> dict[str, Path]:
    """Scripts by name; modules that these import are none."""
    found = {path.stem: path for path in folder.glob('*.py') if '__main__' in path.read_text(encoding='utf-8')}
    return dict(sorted((found | {path.stem: path for path in folder.glob('*.sh')}).items()))


def told(tool: Path) -> str:
    """What a script says of itself: its docstring, or the comment that a shell script begins with."""
    text = tool.read_text(encoding='utf-8')
    if tool.suffix == '.py':
        return ast.get_docstring(ast.parse(text)) or ''
    comment = itertools.takewhile(lambda line: line.startswith('#'), text.splitlines()[1:])
    return '\n'.join(line.removeprefix('#').removeprefix(' ') for line in comment)


def usage(tools: dict[str, Path]) -> str:
    """What `mmkd --help` prints."""
    about = {name: told(path).partition('\n')[0].rstrip(':') for name, path in tools.items()}
    about[DOCTOR] = 'Explain a set-up that does not work.'
    width = max(map(len, about))
    lines = (f'  {name:{width}}  {text}' for name, text in sorted(about.items()))
    return (
        'usage: mmkd TOOL [arguments]; mmkd TOOL --help tells them; mmkd --version\n\n' + '\n'.join(lines) + '\n\n'
        'A config is a path, or mmkd_plugin::NAME for one of ours, such as mmkd_plugin::dkd_resnet.py.'
    )


def command_of(name: str, tools: dict[str, Path]) -> list[str]:
    """What runs a tool, without its arguments.

    Raises:
        SystemExit: If there is none of that name.
    """
    if name == DOCTOR:
        return [sys.executable, '-m', 'mmkd_plugin.doctor']
    if tool := tools.get(name.replace('-', '_')):
        return ['bash' if tool.suffix == '.sh' else sys.executable, str(tool)]
    near = difflib.get_close_matches(name, [*tools, DOCTOR], n=3)
    meant = f'did you mean {" or ".join(near)}?' if near else 'mmkd --help lists what there is'
    raise SystemExit(f"mmkd: there is no tool '{name}': {meant}")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Become the tool's process: its signals, output and exit code are its own.

    Raises:
        SystemExit: If no tool is asked for, or one that is not there.
    """
    name, *arguments = (sys.argv[1:] if argv is None else list(argv)) or ['--help']
    if name == '--version':
        print(__version__)
        raise SystemExit(0)
    tools = find_tools()
    if name in ('--help', '-h'):
        print(usage(tools))
        raise SystemExit(0)
    command = [*command_of(name, tools), *arguments]
    if command[0] == 'bash' and arguments in ([], ['--help'], ['-h']):  # these scripts count their arguments
        print(told(Path(command[1])))
        raise SystemExit(0)
    os.environ['PYTHON'] = sys.executable  # which the shell scripts take
    os.execvp(command[0], command)
