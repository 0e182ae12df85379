import copy

import pytest
import torch
from torch import nn

from mmkd_plugin.teachers.folding import ConvNormPairs, fold, use_channels_last
from tests.conftest import trained_like


class PreActivation(nn.Module):
    """Norm before convolution; attributes stand in an order that misleads."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(4, 4, 1)
        self.norm2 = nn.BatchNorm2d(4)
        self.shared = nn.Conv2d(4, 4, 1)
        self.norm3 = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv1(self.norm1(x))
        x = self.norm2(self.conv2(x)).relu()
        return self.norm3(self.shared(self.shared(x)))


def run(model, x):
    with torch.no_grad():
        return model(x)


def fold_all(model, x):
    with ConvNormPairs(model) as pairs:
        run(model, x)
    fold(model, pairs.found())
    return pairs.found()


def test_only_real_pairs_are_found_and_values_stay():
    model = trained_like(PreActivation().double()).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = run(model, x)
    pairs = fold_all(model, x)
    assert [(c is model.conv2) for c, _ in pairs] == [True]
    assert isinstance(model.norm2, nn.Identity)
    assert isinstance(model.norm1, nn.BatchNorm2d)
    torch.testing.assert_close(run(model, x), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    'kind',
    [
        {'type': 'ResNet', 'depth': 18},
        {'type': 'ResNet', 'depth': 50},
        {'type': 'MobileNetV2', 'widen_factor': 0.5},
        {'type': 'VGG', 'depth': 11, 'norm_cfg': {'type': 'BN'}, 'num_classes': 5},
        {'type': 'DenseNet', 'arch': '121'},
    ],
)
def test_mmpretrain_backbones(kind):
    from mmpretrain.registry import MODELS

    model = trained_like(MODELS.build(kind)).double()
    model.eval()
    plain = copy.deepcopy(model)
    x = torch.randn(1, 3, 224 if kind['type'] == 'VGG' else 64, 224 if kind['type'] == 'VGG' else 64).double()
    pairs = fold_all(model, x)
    assert len(pairs) >= {'ResNet': 20, 'MobileNetV2': 50, 'VGG': 8, 'DenseNet': 50}[kind['type']]
    for got, expected in zip(run(model, x), run(plain, x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def test_hooks_are_removed():
    model = PreActivation().eval()
    fold_all(model, torch.randn(1, 3, 8, 8))
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.openmmlab
def test_deformable_convolution_stays_contiguous():
    """mmcv's operations refuse or misread other memory formats."""
    from mmcv.ops import ModulatedDeformConv2dPack

    torch.manual_seed(0)
    deformable = ModulatedDeformConv2dPack(8, 4, 3)
    nn.init.normal_(deformable.conv_offset.weight)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), deformable, nn.Conv2d(4, 2, 1)).eval()
    fast = copy.deepcopy(plain)
    use_channels_last(fast)
    x = torch.randn(2, 3, 12, 12)
    assert next(fast.parameters()).is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(
            fast(x.contiguous(memory_format=torch.channels_last)), plain(x), rtol=1e-4, atol=1e-5
        )
