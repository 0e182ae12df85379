"""Knowledge distillation for unmodified OpenMMLab projects.

Importing this package registers ``Distilled``, the losses, hooks and models with mmengine, and
lets ``torch.load(weights_only=True)`` read mmengine's own checkpoints.
"""

import sys

from .version import __version__

# `python -m mmkd_plugin.doctor` explains environments in which the imports below fail
if 'mmkd_plugin.doctor' not in getattr(sys, 'orig_argv', ()):
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
