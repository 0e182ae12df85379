import pytest
import torch
from torch import nn

from mmkd_plugin.models import MobileNetV1

pytestmark = pytest.mark.openmmlab


def test_parameters_are_as_published(classifier_parameters):
    assert classifier_parameters(MobileNetV1(), 1024, 1000) == 4_231_976


def test_stage_shapes():
    backbone = MobileNetV1(out_indices=(0, 1, 2, 3)).eval()
    images = torch.zeros(1, 3, 224, 224)
    assert backbone.stem(images).shape == (1, 64, 112, 112)
    assert [tuple(o.shape) for o in backbone(images)] == [
        (1, 128, 56, 56),
        (1, 256, 28, 28),
        (1, 512, 14, 14),
        (1, 1024, 7, 7),
    ]


def test_it_has_the_papers_layers():
    convs = [m for m in MobileNetV1().modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 1 + 2 * 13
    assert sum(conv.groups == conv.in_channels for conv in convs) == 13


def test_train_step(check_train_step):
    check_train_step(MobileNetV1(), 64)
