"""What `benchmark.py` says of the machine, and what it finds there. Imports nothing that may be missing."""

import contextlib
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    'torch', 'torchvision', 'triton', 'numpy', 'onedl-mmengine', 'mmengine', 'onedl-mmcv', 'mmcv', 'mmcv-lite',
    'onedl-mmpretrain', 'mmpretrain', 'onedl-mmdetection', 'mmdet',
)  # fmt: skip


@dataclass
class Machine:
    """What was found.

    Attributes:
        facts: Rows of a table, by name.
        lacks: What parts may need and is not there, by name, each with the reason.
    """

    facts: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)

    @property
    def gpu(self) -> bool:
        """Whether torch can use one."""
        return 'a GPU' not in self.lacks


def _gpus(least: int) -> None:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < least:
        raise RuntimeError(f'torch sees {count}')
    torch.ones(1, device='cuda').sum().item()


def _ops() -> None:
    """RoIAlign, NMS and the focal loss, which detectors train with, where they will run."""
    import torch
    from mmcv.ops import RoIAlign, nms, sigmoid_focal_loss

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]], device=device)
    nms(boxes, boxes[:, 2], 0.5)
    RoIAlign(2)(torch.ones(1, 1, 8, 8, device=device), torch.cat([boxes[:, :1], boxes], 1))
    if device == 'cuda':  # on a CPU mmdet has a way without
        sigmoid_focal_loss(torch.ones(1, 2, device=device), torch.zeros(1, dtype=torch.int64, device=device))
        torch.cuda.synchronize()


# what parts may need, by name; it is there if the function returns
NEEDS: dict[str, Callable[[], Any]] = {
    'torch': lambda: importlib.import_module('torch'),
    'a GPU': lambda: _gpus(1),
    'two GPUs': lambda: _gpus(2),
    'pytest': lambda: importlib.import_module('pytest'),
    'mmpretrain': lambda: importlib.import_module('mmpretrain.models'),
    'mmdet': lambda: importlib.import_module('mmdet.models'),
    "mmcv's compiled operations": _ops,
}


def _answer(names: Sequence[str]) -> None:
    """In a process of its own, since imports may end it: one line of JSON for each answer, the torch facts first."""
    out = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # packages print as they are imported
    with contextlib.suppress(Exception):
        import torch

        cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
        facts = {
            'CUDA of torch': str(torch.version.cuda),
            'cuDNN': str(cudnn),
            'threads of torch': str(torch.get_num_threads()),
        }
        if torch.cuda.is_available():
            gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            memory = torch.cuda.get_device_properties(0).total_memory / 2**30
            facts['GPU'] = (
                f'{len(gpus)} × {gpus[0]}, {memory:.0f} GiB, compute capability {torch.cuda.get_device_capability()}'
            )
            facts['TF32 in convolutions'] = 'on' if torch.backends.cudnn.allow_tf32 else 'off'
            if torch.distributed.is_nccl_available():
                facts['NCCL'] = '.'.join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
        print(json.dumps({'facts': facts}), file=out, flush=True)
    for name in names:
        try:
            NEEDS[name]()
            why = None
        except BaseException as error:
            why = f'{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ""}'
        print(json.dumps({'need': name, 'why': why}), file=out, flush=True)


def _cpu() -> str:
    with contextlib.suppress(OSError):
        if match := re.search(r'model name\s*:\s*(.+)', Path('/proc/cpuinfo').read_text()):
            return match[1]
    return platform.processor() or platform.machine()


def _cores() -> str:
    """Those that this process may use, and the system's."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return f'{usable} of {os.cpu_count()}'


def _driver() -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
        return subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.split('\n')[0]
    return None


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield package, version(package)


def look(timeout: float = 150) -> Machine:
    """What is there.

    Args:
        timeout: Seconds for what is imported. What is not known by then counts as there, but for GPUs: a part that
            lacks something fails and is named.
    """
    machine = Machine({'CPU': _cpu(), 'cores': _cores()})
    with contextlib.suppress(OSError, ValueError):
        machine.facts['memory'] = f'{os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30:.0f} GiB'
    asked, deadline = list(NEEDS), time.monotonic() + timeout
    while asked:
        answers, ended = _ask(asked, deadline - time.monotonic())
        for answer in answers:
            machine.facts.update(answer.get('facts', {}))
            if answer.get('why'):
                machine.lacks[answer['need']] = answer['why']
        asked = asked[sum('need' in answer for answer in answers) :]
        if ended is None:
            machine.lacks |= {name: f'no answer in {timeout:.0f} s' for name in asked if 'GPU' in name}
            break
        if asked:
            machine.lacks[asked.pop(0)] = f'the process that looked ended with {ended}'
    if driver := _driver():
        machine.facts['driver'] = driver
    machine.facts |= {'system': f'{platform.system()} {platform.release()}', 'python': platform.python_version()}
    machine.facts |= dict(_versions())
    return machine


def _ask(names: Sequence[str], timeout: float) -> tuple[list[dict[str, Any]], int | None]:
    """Answers, and how the process ended that gave them; None: it was too slow."""
    code = f'import benchmark_machine; benchmark_machine._answer({list(names)!r})'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(search_path())}
    with tempfile.TemporaryFile('w+') as out:
        try:
            ended: int | None = subprocess.run(
                [sys.executable, '-W', 'ignore', '-c', code], env=environment, stdout=out, stderr=subprocess.DEVNULL,
                timeout=max(timeout, 1), check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            ended = None
        out.seek(0)
        return [json.loads(line) for line in out if line.endswith('\n')], ended


def search_path() -> list[str]:
    """PYTHONPATH of what is run: the checkout, the tools, and what was given."""
    given = os.environ.get('PYTHONPATH', '')
    return [str(ROOT), str(ROOT / 'tools'), *(path for path in given.split(os.pathsep) if path)]
