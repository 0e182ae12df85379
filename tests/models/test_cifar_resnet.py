import pytest
import torch
from torch import nn

from mmkd_plugin.models import CIFARResNet

pytestmark = pytest.mark.openmmlab

X4 = (32, 64, 128, 256)


@pytest.mark.parametrize(
    ('depth', 'channels', 'published'),
    [
        (20, (16, 16, 32, 64), 278_324),
        (56, (16, 16, 32, 64), 861_620),
        (8, X4, 1_233_540),
        (32, X4, 7_433_860),
    ],
)
def test_parameters_are_as_published(classifier_parameters, depth, channels, published):
    assert classifier_parameters(CIFARResNet(depth, channels), channels[-1], 100) == published


def test_stage_shapes():
    outputs = CIFARResNet(8, X4, out_indices=(0, 1, 2))(torch.zeros(2, 3, 32, 32))
    assert [tuple(o.shape) for o in outputs] == [(2, 64, 32, 32), (2, 128, 16, 16), (2, 256, 8, 8)]


def test_depth_counts_the_layers_with_weights():
    convs = [m for m in CIFARResNet(56).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convs) + 1 == 56  # and the classifier


def test_shortcut_is_the_identity_where_shapes_agree():
    plain, x4 = CIFARResNet(14), CIFARResNet(14, X4)
    assert isinstance(plain.get_submodule('layer1.0.shortcut'), nn.Identity)
    assert isinstance(x4.get_submodule('layer1.0.shortcut'), nn.Sequential)
    assert isinstance(x4.get_submodule('layer1.1.shortcut'), nn.Identity)
    assert isinstance(plain.get_submodule('layer2.0.shortcut'), nn.Sequential)


def test_initialisation_is_he_over_the_fan_out():
    torch.manual_seed(0)
    backbone = CIFARResNet(8, X4)
    backbone.init_weights()
    weight = backbone.get_submodule('layer3.0.conv1').weight  # 256 × 128 × 3 × 3
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    norm = backbone.get_submodule('layer3.0.norm1')
    assert (norm.weight == 1).all()
    assert (norm.bias == 0).all()


def test_train_step(check_train_step):
    check_train_step(CIFARResNet(8), 32)


@pytest.mark.parametrize('depth', [2, 18, 21])
def test_wrong_depth_is_refused(depth):
    with pytest.raises(ValueError, match=rf'depth={depth}.*6n\+2'):
        CIFARResNet(depth)


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match='expected four'):
        CIFARResNet(8, (16, 32, 64))
