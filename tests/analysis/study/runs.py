"""Runs of a tiny digits student that was never trained: checkpoints as PathLengthHook leaves them."""

import functools
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmkd_plugin.analysis.study.explain import explain
from mmkd_plugin.files.configs import config_path
from mmkd_plugin.teachers.network_spec import model_of
from tests.conftest import build, trained_like
from tests.end_to_end.helpers import parse

TINY = ('--images', 3, '--cells', 4, '--noise', 2, '--steps', 4, '--keep-all')


def student_config(name: str = 'dkd_resnet.py') -> Config:
    return Config.fromfile(config_path(name))


@functools.cache
def _state() -> dict[str, Any]:
    return trained_like(build(model_of(student_config(), 'student'))).state_dict()


def weights(seed: int) -> dict[str, Any]:
    """Others for another seed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: value * (1 + 0.2 * torch.rand(value.shape, generator=generator)) if value.is_floating_point() else value
        for key, value in _state().items()
    }


def make_run(folder: Path, seed: int, numbers: tuple[int, ...] = (0, 1, 4), told: bool = True) -> Path:
    """A run's folder; ``told`` whether checkpoints tell the path of backbone.layer4."""
    for place, number in enumerate(numbers):
        content: dict[str, Any] = {'state_dict': weights(10 * seed + place)}
        if told:
            content['path_length'] = {'backbone.layer4': {'length': 6.0 * place, 'start': 2.0}}
        path = folder / 'explain' / f'epoch_{number}.pth'
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
    return folder


def explained(folder: Path, students: Any, baselines: Any, *more: Any, config: Any = None) -> str:
    """``tools/explain.py`` in this process."""
    return explain(
        parse('explain.py', config or config_path('dkd_resnet.py'), *students, '--baseline', *baselines, '--tap',
              'backbone.layer4', '--work-dir', folder, *TINY, *more)
    )  # fmt: skip
