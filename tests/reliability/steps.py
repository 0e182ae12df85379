"""A script: train a config for many steps, and print what the process holds on the way. Arguments: JSON."""

import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmkd_plugin.launch import _run


def held() -> dict[str, int]:
    """Bytes that are resident, open files, threads, live tensors."""
    gc.collect()
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return {
        'memory': pages * os.sysconf('SC_PAGE_SIZE'),
        'files': len(os.listdir('/proc/self/fd')),
        'threads': len(os.listdir('/proc/self/task')),
        'python_threads': threading.active_count(),
        'tensors': sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()),
    }


class Look(Hook):
    """Looks after some steps."""

    priority = 'VERY_LOW'

    def __init__(self, steps: list[int]) -> None:
        self.steps = steps

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        del data_batch, outputs
        if runner.iter + 1 in self.steps:
            print('HELD ' + json.dumps({'step': runner.iter + 1, **held()}), flush=True)


if __name__ == '__main__':
    given = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    cfg = Config.fromfile(given['config'])
    cfg.merge_from_dict(given['options'])
    cfg.launcher, cfg.work_dir = 'none', given['work_dir']
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = []
    drop = ('TeacherEvalHook', 'PeerEvalHook')
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook['type'] not in drop]
    cfg.custom_hooks = [*hooks, dict(type='DistillHook'), dict(type=Look, steps=given['steps'])]
    _run(cfg, 'train')
