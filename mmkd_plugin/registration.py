"""Putting the losses, which know nothing of mmengine, into its registry."""

from mmengine.registry import MODELS

from . import losses


def register_losses() -> None:
    """Register every :class:`DistillLoss` that ``mmkd_plugin.losses`` exports.

    In mmengine's root registry, so that ``type='DKDLoss'`` resolves under any default scope.
    """
    for name in losses.__all__:
        item = getattr(losses, name)
        if isinstance(item, type) and item is not losses.DistillLoss:
            MODELS.register_module(module=item)
