"""Putting the losses, which know nothing of mmengine, into its registry."""

from mmengine.registry import MODELS

from . import losses

BASES = (losses.DistillLoss, losses.SampleRelationLoss)


def register_losses() -> None:
    """Register every :class:`DistillLoss` that ``mmkd_plugin.losses`` exports.

    In mmengine's root registry, so that ``type='DKDLoss'`` resolves under any default scope.
    """
    for name in losses.__all__:
        item = getattr(losses, name)
        if isinstance(item, type) and item not in BASES:
            MODELS.register_module(module=item)
