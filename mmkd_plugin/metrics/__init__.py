"""Metrics that tell old classes from new ones. Imported without mmpretrain and mmdet, which they need when built."""

from typing import Any

from mmengine.registry import METRICS


@METRICS.register_module()
def OldNewAccuracy(old: int, **kwargs: Any) -> Any:  # noqa: N802 (it stands where a config names a class)
    """Mmpretrain's ``Accuracy``, over all images, and apart over those of old and of new classes.

    Beside ``accuracy/top1`` it logs ``accuracy/old`` and ``accuracy/new`` (of other ``topk`` and ``thrs``,
    ``accuracy/old_top5`` ...), in %. These predictions are among all classes, so an old image that is taken for a new
    class is wrong. ``accuracy/old_within`` and ``accuracy/new_within`` are predictions among the classes of one kind,
    for who knows which kind an image is of, as in LwF's paper. Where the data have no image of one kind, there are no
    such numbers.

    Args:
        old: How many classes are old; they are the first ones.
        **kwargs: See ``Accuracy``: ``topk``, ``thrs`` ...

    Raises:
        ValueError: If ``old`` is no whole number above 0, or, at the evaluation, if not fewer than all classes.
    """
    from .accuracy import OldNewAccuracy as Metric

    return Metric(old, **kwargs)


@METRICS.register_module()
def OldNewVOCMetric(old: int, **kwargs: Any) -> Any:  # noqa: N802
    """Mmdet's ``VOCMetric``, over all classes, and apart over old and new ones.

    Beside ``pascal_voc/mAP`` and ``pascal_voc/AP50`` it logs ``pascal_voc/mAP_old``, ``pascal_voc/mAP_new`` and so on:
    means over these classes. The precision of a class is what it is beside all others, whichever mean it goes into.

    Args:
        old: How many classes are old; they are the first ones.
        **kwargs: See ``VOCMetric``; ``metric`` is ``mAP``.

    Raises:
        ValueError: If ``old`` is no whole number above 0, or another ``metric`` is meant; at the evaluation, if not
            fewer than all classes.
    """
    from .voc import OldNewVOCMetric as Metric

    return Metric(old, **kwargs)


__all__ = ['OldNewAccuracy', 'OldNewVOCMetric']
