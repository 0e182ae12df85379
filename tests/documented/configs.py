"""Trying a config: it is read with its bases, and model, hooks, optimizer and metrics are built from it."""

import ast
import re
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, METRICS, MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings

from tests.documented.blocks import ROOT, Block

DEFAULT = 'configs/kd_resnet.py'
#: Keys of ``model`` that a fragment may show alone.
OF_MODEL = ('teacher', 'teachers', 'losses', 'task_loss', 'start')
#: What pages call the reader's own files.
READERS = {
    'my_student.py': "_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'\n",
    'my_faster_rcnn.py': "_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\nmodel = dict(backbone=dict("
    'depth=18, init_cfg=None), neck=dict(in_channels=[64, 128, 256, 512]))\n',
    'my_teacher.py': f"_base_ = '{ROOT}/configs/digits/resnet_teacher.py'\n",
}


def write_config(block: Block, folder: Path) -> Path:
    """The block as a file that can be read: fragments with a base, keys of the model inside it."""
    for name, text in READERS.items():
        if not (folder / name).exists():
            (folder / name).write_text(text)
    path = folder / block.marks.get('file', f'line_{block.line}.py')
    if 'read_base' in block.code:
        path.write_text(block.code)
        return path
    body = re.sub(r'\{\{.*?\}\}', 'None', block.code)
    names = {
        t.id for s in ast.parse(body).body if isinstance(s, ast.Assign) for t in s.targets if isinstance(t, ast.Name)
    }
    code = block.code
    if '_base_' not in names:
        onto = block.marks.get('onto', DEFAULT)
        base = onto if '::' in onto or (folder / onto).exists() else str(ROOT / onto)
        code = f'_base_ = {base!r}\n{code}'
        if 'model' not in names and (given := [key for key in OF_MODEL if key in names]):
            code += f'\nmodel = dict({", ".join(_entries(base, given, folder))})\n'
    path.write_text(code.replace("'../../_base_/", f"'{ROOT}/configs/_base_/"))
    return path


def _entries(base: str, given: list[str], folder: Path) -> list[str]:
    """What a fragment's keys are in ``model``: in place of the base's, where this has them."""
    probe = folder / 'probe.py'
    probe.write_text(f'_base_ = {base!r}\n')
    below = Config.fromfile(probe).model
    entries = [f'{key}=dict(_delete_=True, **{key})' if key in below else f'{key}={key}' for key in given]
    if 'teachers' in given and 'teacher' in below:
        entries.append('teacher=None')
    if 'teacher' in given and 'teachers' in below:
        entries.append('teachers=None')
    if below.type != 'Distilled':
        entries += ["type='Distilled'", f'student={below.type!r}']
    return entries


def build(path: Path) -> None:
    """What the Runner would build of it, except the data."""
    cfg = Config.fromfile(path)
    if modules := cfg.get('custom_imports'):
        import_modules_from_strings(**modules)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        model: Any = dict(cfg.model)
        if preprocessor := cfg.get('data_preprocessor'):
            model.setdefault('data_preprocessor', preprocessor)
        torch.manual_seed(0)
        built = MODELS.build(model)
        for hook in [*cfg.get('custom_hooks', []), *cfg.get('default_hooks', {}).values()]:
            if 'VisualizationHook' not in hook['type']:  # which wants the run's visualizer
                HOOKS.build(hook)
        if optimizer := cfg.get('optim_wrapper'):
            build_optim_wrapper(built, optimizer)
        for metric in [cfg.get('val_evaluator') or []]:
            for entry in metric if isinstance(metric, list) else [metric]:
                if 'ann_file' not in entry:
                    METRICS.build(entry)
