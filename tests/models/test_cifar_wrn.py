import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_plugin.models import CIFARWideResNet

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize(('depth', 'widen', 'published'), [(40, 2, 2_255_156), (16, 2, 703_284), (40, 1, 569_780)])
def test_parameters_are_as_published(classifier_parameters, depth, widen, published):
    assert classifier_parameters(CIFARWideResNet(depth, widen), 64 * widen, 100) == published


def test_stage_shapes():
    outputs = CIFARWideResNet(10, 2, out_indices=(0, 1, 2))(torch.zeros(2, 3, 32, 32))
    assert [tuple(o.shape) for o in outputs] == [(2, 32, 32, 32), (2, 64, 16, 16), (2, 128, 8, 8)]


def textbook(backbone: nn.Module, depth: int, widen: int, x: Tensor) -> Tensor:
    """Wide ResNet as in the paper and its code: each block begins with its own BatchNorm and ReLU.

    In a block that changes the shape both branches read the activated input, in another the
    shortcut is the block's input as it came. Layers are taken from the backbone in the order in
    which such a network applies them, whichever module holds them.
    """
    convs = iter([m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)])
    shortcuts = iter([m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)])
    norms = iter([m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)])

    def activate(y: Tensor) -> Tensor:
        return F.relu(next(norms)(y))

    x = next(convs)(x)
    for stage in range(3):
        for _ in range((depth - 4) // 6):
            activated = activate(x)
            channels = 16 * widen * 2**stage
            shortcut = next(shortcuts)(activated) if x.size(1) != channels else x
            hidden = activate(next(convs)(activated))
            x = shortcut + next(convs)(hidden)
    x = activate(x)
    assert not list(convs)
    assert not list(shortcuts)
    assert not list(norms)
    return x


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize(('depth', 'widen'), [(16, 2), (16, 1)])
def test_moving_the_first_norm_of_a_stage_changes_nothing(depth, widen, training):
    torch.manual_seed(0)
    backbone = CIFARWideResNet(depth, widen).double()
    for norm in backbone.modules():  # so that no two BatchNorms are interchangeable
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            norm.get_buffer('running_mean').normal_()
            norm.get_buffer('running_var').uniform_(0.5, 1.5)
    backbone.train(training)
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(backbone(x)[-1], textbook(backbone, depth, widen, x))


def test_the_taps_within_a_stage():
    backbone = CIFARWideResNet(16, 2, out_indices=(0, 1, 2)).eval()
    taps = {}
    for path in ('layer2.block2', 'layer2.norm', 'layer3.block1.preact1'):
        backbone.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, path=path: taps.update({path: (inputs[0], output)})
        )
    outputs = backbone(torch.randn(2, 3, 32, 32))
    assert taps['layer2.norm'][0] is taps['layer2.block2'][1]
    torch.testing.assert_close(taps['layer2.norm'][1].relu(), outputs[1])
    assert taps['layer3.block1.preact1'][0] is outputs[1]  # the next stage reads the stage's output


def test_train_step(check_train_step):
    check_train_step(CIFARWideResNet(16, 2), 32)
    check_train_step(CIFARWideResNet(10, 1), 32)


@pytest.mark.parametrize('depth', [4, 20, 38])
def test_wrong_depth_is_refused(depth):
    with pytest.raises(ValueError, match=rf'depth={depth}.*6n\+4'):
        CIFARWideResNet(depth, 2)


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match='widen_factor=0'):
        CIFARWideResNet(16, 0)
