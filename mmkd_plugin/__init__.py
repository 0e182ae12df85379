"""Knowledge distillation for unmodified OpenMMLab projects.

Importing this package registers ``Distilled``, the losses, hooks and models with mmengine, and
lets ``torch.load(weights_only=True)`` read mmengine's own checkpoints.
"""

import sys

from .version import __version__

_given = getattr(sys, 'orig_argv', [])
# `python -m mmkd_plugin.doctor` explains environments in which the imports below fail; the command `mmkd` starts other
# processes, which import what they need
if 'mmkd_plugin.doctor' not in _given and not ''.join(_given[1:2]).endswith('/bin/mmkd'):
    from . import datasets, files, hooks, kcd, losses, metrics, models, optim, sharded
    from .distillation.student import Distilled, distill
    from .files.checkpoint import allow_mmengine_globals
    from .files.configs import config_path, load_config
    from .losses import DistillLoss, DKDLoss, KDLoss
    from .registration import register_losses

    allow_mmengine_globals()
    files.register()
    register_losses()

__all__ = [
    'DKDLoss',
    'DistillLoss',
    'Distilled',
    'KDLoss',
    '__version__',
    'config_path',
    'datasets',
    'distill',
    'files',
    'hooks',
    'kcd',
    'load_config',
    'losses',
    'metrics',
    'models',
    'optim',
    'sharded',
]
