"""Whether a tap reads class scores: refused where it is known not to, said where it cannot be known."""

import logging
from typing import Any

from mmengine.logging import print_log
from torch import nn

from .detectors import BoxBranch, is_detector
from .taps import Tap, find_module


def check_reads_logits(model: nn.Module, tap: Tap, branch: BoxBranch | None, side: str, who: str) -> None:
    """Check a tap of something that compares predictions by their softmax.

    Args:
        model: Student or teacher.
        tap: What is read of it.
        branch: The box branch it lies in.
        side: What the model is called in the error.
        who: What reads, such as ``losses['loss_kd'] (KDLoss)``.

    Raises:
        ValueError: If the tap is known to read something else, or scores of classes that do not exclude each other.
    """
    head: Any = model.get_submodule(branch.head) if branch else getattr(model, 'head', None)
    if branch:
        _check_box_branch(head, tap, branch, side, who)
    elif is_detector(model):
        raise ValueError(
            f"{who} compares class scores, and '{tap}' of the {side} reads none: of a detector, RoIs are classified in "
            "'roi_head.bbox_head.fc_cls'; use a feature loss on the backbone or neck"
        )
    elif isinstance(head, nn.Module) and hasattr(model, 'backbone'):
        _check_classifier(head, tap, model, side, who)
    elif not isinstance(find_module(model, tap.path, side), nn.Linear):
        _warn(f"{who} compares class scores, and nobody knows whether '{tap}' of the {side} reads some")
    loss: Any = getattr(head, 'loss_cls', None) or getattr(head, 'loss_module', None)
    if getattr(loss, 'use_sigmoid', False):
        _warn(f"{who} takes a softmax over '{tap}' of the {side}, whose own loss takes the sigmoid of each class")


def _check_box_branch(head: Any, tap: Tap, branch: BoxBranch, side: str, who: str) -> None:
    scores = (f'{branch.head}.fc_cls', f'{branch.head}[0]')
    if str(tap) not in scores:
        raise ValueError(f"{who} compares class scores, and '{tap}' of the {side} reads none: on='{scores[0]}'")
    if getattr(head, 'custom_cls_channels', False):
        raise ValueError(
            f"{who}: the columns of '{tap}' of the {side} are not just classes and background ("
            f'{type(head.loss_cls).__name__} adds its own), so they cannot be compared as one prediction; use a '
            'feature loss'
        )


def _check_classifier(head: nn.Module, tap: Tap, model: nn.Module, side: str, who: str) -> None:
    """Of image classifiers as mmpretrain makes them."""
    if any(cls.__name__ == 'MultiLabelClsHead' for cls in type(head).__mro__):
        raise ValueError(
            f"{who} takes a softmax over classes, and those of the {side}'s {type(head).__name__} do not exclude each "
            'other; use a feature loss'
        )
    module, classes = find_module(model, tap.path, side), getattr(head, 'num_classes', None)
    scores = any(isinstance(m, nn.Linear) and m.out_features == classes for m in module.modules())
    if not f'{tap.path}.'.startswith('head.') and any(True for _ in head.parameters()):
        if not scores and f'{tap.path}.'.startswith(('backbone.', 'neck.')):
            raise ValueError(
                f"{who} compares class scores, and '{tap}' of the {side} lies before the classifier "
                f"({type(head).__name__} in 'head'): tap that, such as 'head.fc'; tools/list_modules.py lists modules"
            )
        if not scores:
            _warn(f"{who} compares class scores, and nobody knows whether '{tap}' of the {side} reads some")
    elif isinstance(module, nn.Linear) and not tap.of_input and classes and module.out_features != classes:
        raise ValueError(
            f"{who} compares class scores, and '{tap}' of the {side} reads {module.out_features} values for {classes} "
            'classes: tap the classifier itself'
        )


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
