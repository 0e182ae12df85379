"""What `tools/train.py` and `tools/test.py` do with their arguments: a config made from them, and its run."""

import argparse
import copy
import fcntl
import gc
import os
import platform
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS, RUNNERS
from mmengine.runner import Runner

from .distillation.student import Distilled
from .files.addresses import local_path
from .files.atomic import remove_unfinished
from .files.file_kinds import not_by_torch
from .hooks import DistillHook, PeerEvalHook, TeacherEvalHook
from .optim import amp_type
from .teachers import Peer, plain_student

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def _read_config(args: argparse.Namespace) -> Config:
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        config = Config.fromfile(args.config)
    except SyntaxError as error:  # mmengine reads it without its name
        raise SystemExit(f"config '{args.config}', or one that it inherits, is no Python: {error}") from error
    config.launcher = args.launcher
    if args.cfg_options:
        config.merge_from_dict(args.cfg_options)
    if args.work_dir:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    for name in _LOADERS:
        # mmpretrain's own train.py does the same; most of its configs rely on it
        if config.get(name) is not None and config.get('default_scope') == 'mmpretrain':
            config[name].setdefault('collate_fn', dict(type='default_collate'))
            config[name].setdefault('pin_memory', torch.cuda.is_available())
    return config


def _add_hooks(config: Config) -> None:
    """For distilled models DistillHook, and PeerEvalHook where peers are validated, unless it or an heir is there."""
    model, hooks = config.get('model', {}), list(config.get('custom_hooks') or [])
    kinds = {hook['type'] for hook in hooks}
    distilled = model.get('type') in ('Distilled', Distilled)
    if distilled and not kinds & {'DistillHook', DistillHook, 'TeacherEvalHook', TeacherEvalHook}:
        config.custom_hooks = hooks = [*hooks, dict(type='DistillHook')]
    specs = [model.get('teacher'), *(model.get('teachers') or {}).values()] if distilled else []
    peers = [spec for spec in specs if isinstance(spec, Mapping) and spec.get('type') in ('Peer', Peer)]
    if peers and config.get('val_cfg') is not None and not kinds & {'PeerEvalHook', PeerEvalHook}:
        config.custom_hooks = [*hooks, dict(type='PeerEvalHook')]


def occupy(work_dir: str | Path) -> AbstractContextManager[Any]:
    """Lock a work folder until the block ends or this process dies; processes of rank 0 do.

    Raises:
        SystemExit: If another run is using it, or it cannot be written to.
    """
    ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    if next((os.environ[name] for name in ranks if os.environ.get(name)), '0') != '0':
        return nullcontext()
    path = Path(work_dir) / '.running'
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open('a+')
    except OSError as error:
        raise SystemExit(
            f"--work-dir: nothing can be written into '{work_dir}' ({error.strerror}): give another folder"
        ) from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # by process, so that data workers do not keep it
    except BlockingIOError:
        file.seek(0)
        raise SystemExit(
            f"another run is using the work folder '{work_dir}' ({file.read().strip()}), and both would overwrite each "
            "other's checkpoints: wait for it, or give another --work-dir"
        ) from None
    except OSError:  # a file system without locks
        return file
    remove_unfinished(path.parent)
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}\n')
    file.flush()
    return file


def config_of_run(args: argparse.Namespace) -> Config:
    """The config of a run as `tools/train.py` makes it of its arguments, with everything that it builds imported."""
    config = _read_config(args)
    _add_hooks(config)
    import_models(config)
    return config


def _drop_teacher_evaluation(config: Config) -> None:
    """For runs without validation data or without a teacher."""
    hooks, dropped = (
        config.get('custom_hooks') or [],
        ('TeacherEvalHook', TeacherEvalHook, 'PeerEvalHook', PeerEvalHook),
    )
    config.custom_hooks = [hook for hook in hooks if hook['type'] not in dropped]


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The newest whole checkpoint of a run, where mmengine's own pointer to it is not usable.

    mmengine writes the name of the newest file into `last_checkpoint`. A run killed in just that
    moment leaves it empty, or naming a file that is gone.

    Returns:
        A path, or None where the pointer is fine or there is no checkpoint at all.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    if pointer.is_file() and (named := pointer.read_text().strip()) and Path(named).is_file():
        return None
    found = [(int(match[1]), path) for path in Path(work_dir).glob('*.pth')
             if (match := re.fullmatch(r'(?:epoch|iter)_(\d+)', path.stem))]  # fmt: skip
    return next((str(path) for _, path in sorted(found, reverse=True) if zipfile.is_zipfile(path)), None)


def _run(config: Config, what: Literal['train', 'test']) -> None:
    """Build the Runner and run it; on machines without a GPU several processes talk through gloo."""
    # torch's own switch: nothing that is loaded may bring pickled code, unless the user says so
    if 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD' not in os.environ:
        os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    if config.launcher == 'pytorch':
        _check_environment()
    if config.launcher == 'pytorch' and not torch.cuda.is_available():
        # mmengine's launcher would call torch.cuda.set_device and pass device_ids
        torch.distributed.init_process_group('gloo')
        config.model_wrapper_cfg = config.get('model_wrapper_cfg') or dict(type='MMDistributedDataParallel')
        if config.model_wrapper_cfg.get('type') == 'MMDistributedDataParallel':
            config.model_wrapper_cfg.setdefault('device_ids', None)
            config.model_wrapper_cfg.setdefault('broadcast_buffers', False)
            config.model_wrapper_cfg.setdefault('find_unused_parameters', config.get('find_unused_parameters', False))
    occupied = occupy(config.work_dir) if what == 'train' else nullcontext()
    with occupied:
        _run_in_folder(config, what)


def _check_environment() -> None:
    """Raises SystemExit where nobody started several processes."""
    if missing := [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]:
        raise SystemExit(
            f'--launcher pytorch given, and {", ".join(missing)} are not in the environment, where torchrun puts them: '
            'start it by tools/dist_train.sh CONFIG GPUS, or drop --launcher'
        )


def _check_resumable(checkpoint: str) -> None:
    """Raises SystemExit, if a local file is not there or was not written by torch.save."""
    try:
        path = local_path(checkpoint)
        problem = path and not_by_torch(path)
    except FileNotFoundError:
        problem = 'does not exist. Give one that is there, or none, which takes the latest in the work folder'
    except ValueError as error:
        raise SystemExit(f'--resume: {error}') from error
    if problem:
        raise SystemExit(f"--resume: checkpoint '{checkpoint}' {problem}")


def _run_in_folder(config: Config, what: str) -> None:
    import_models(config)
    runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    getattr(runner, what)()
    if torch.distributed.is_initialized():
        # all together, and after the last user of the group: a gloo group that python tears down
        # at exit can abort the process
        torch.distributed.barrier()
        del runner
        gc.collect()
        torch.distributed.destroy_process_group()


def import_models(config: Config) -> None:
    """Import a scope's models, as mmengine does for the first that it builds, and end the tools' pause of collection.

    Modules live to the end, and are frozen: else python looks through them for garbage time and again while it imports,
    and mmengine once for each data set, which takes 0.2 s among half a million objects.
    """
    with _classifiers_alone(config), MODELS.switch_scope_and_registry(config.get('default_scope')) as registry:
        registry.import_from_location()
    gc.freeze()
    gc.enable()


@contextmanager
def _classifiers_alone(config: Config) -> Iterator[None]:
    """While mmpretrain is imported for a config that says nothing of mmdet, mmdet is as if it were not installed.

    mmpretrain imports all of it, if it can, for the sake of one layer that only detectors use (ResLayerExtraNorm), and
    has a way of its own where it cannot. Python's way to say so is None in `sys.modules`. Afterwards mmdet can be
    imported as ever.
    """
    asks = re.search('mmdet|ResLayerExtraNorm', str(config.to_dict()))
    if asks or config.get('default_scope') != 'mmpretrain' or 'mmdet' in sys.modules:
        yield
        return
    sys.modules['mmdet'] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules['mmdet']


def run_train(args: argparse.Namespace) -> None:
    """`tools/train.py`, which makes the arguments."""
    config = _read_config(args)
    if args.no_validate:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
        _drop_teacher_evaluation(config)
    if args.amp:
        if get_device() == 'cpu':
            raise SystemExit("--amp: mmengine's AmpOptimWrapper needs a GPU (or NPU, MLU), none is here; drop it")
        config.optim_wrapper.type = amp_type(config.optim_wrapper.get('type'))
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise SystemExit('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config')
        config.auto_scale_lr.enable = True
    if args.resume:
        config.resume = True
        if args.resume != 'auto':
            _check_resumable(args.resume)
        config.load_from = latest_checkpoint(config.work_dir) if args.resume == 'auto' else args.resume
    _add_hooks(config)
    _run(config, 'train')


def run_test(args: argparse.Namespace) -> None:
    """`tools/test.py`, which makes the arguments: evaluates the plain student of a config; needs no teacher."""
    config = _read_config(args)
    config.model = plain_student(config.model)
    _drop_teacher_evaluation(config)
    config.load_from = args.checkpoint
    if args.out:
        evaluators = copy.deepcopy(config.test_evaluator)
        evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
        config.test_evaluator = [*evaluators, dict(type='DumpResults', out_file_path=args.out)]
    _run(config, 'test')
