import pytest
import torch
from torch import nn

from mmkd_plugin.models import CIFARVGG

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize(('depth', 'published'), [(8, 3_965_028), (13, 9_462_180)])
def test_parameters_are_as_published(classifier_parameters, depth, published):
    assert classifier_parameters(CIFARVGG(depth), 512, 100) == published


@pytest.mark.parametrize('depth', [8, 13])
def test_stage_shapes(depth):
    backbone = CIFARVGG(depth, out_indices=(0, 1, 2, 3))
    images = torch.zeros(2, 3, 32, 32)
    assert backbone.stem(images).shape == (2, 64, 32, 32)
    assert [tuple(o.shape) for o in backbone(images)] == [
        (2, 128, 16, 16),
        (2, 256, 8, 8),
        (2, 512, 4, 4),
        (2, 512, 4, 4),  # no pooling before the last block
    ]


def test_depth_counts_the_papers_layers_with_weights():
    convs = [m for m in CIFARVGG(13).modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) + 3 == 13


def test_initialisation_is_he_over_the_fan_out():
    torch.manual_seed(0)
    backbone = CIFARVGG(8)
    backbone.init_weights()
    conv = next(m for m in backbone.get_submodule('layer4').modules() if isinstance(m, nn.Conv2d))
    assert conv.bias is not None
    assert (conv.bias == 0).all()
    assert conv.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)


def test_train_step(check_train_step):
    check_train_step(CIFARVGG(8), 32)


def test_wrong_depth_is_refused():
    with pytest.raises(ValueError, match=r'depth=16.*\[8, 13\]'):
        CIFARVGG(16)
