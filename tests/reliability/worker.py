"""A script: train as `tools/train.py` does, with what one process of a group watches. Arguments: JSON, its own."""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmkd_plugin.launch import _add_hooks, _read_config, _run


class Same(Hook):
    """Compares the parameters of all processes at the end, and prints that they are the same."""

    def after_train(self, runner: Any) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, value in model.named_parameters():
            everybody = [torch.empty_like(value.data) for _ in range(dist.get_world_size())]
            dist.all_gather(everybody, value.data.contiguous())
            assert all(torch.equal(value.data, other) for other in everybody), f'{name} differs between processes'
        print('SAME', flush=True)


if __name__ == '__main__':
    given = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    if given.get('limit'):  # bytes that a file may have
        resource.setrlimit(resource.RLIMIT_FSIZE, (given['limit'], resource.RLIM_INFINITY))
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools'))
    from train import parse

    args = parse(given['arguments'])
    args.cfg_options = given['options']
    config = _read_config(args)
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.custom_hooks = [hook for hook in config.custom_hooks if hook['type'] != 'TeacherEvalHook']
    if args.resume:
        config.resume = True
    _add_hooks(config)
    if args.launcher != 'none':
        config.custom_hooks = [*config.custom_hooks, dict(type=Same)]
    _run(config, 'train')
