from collections.abc import Callable

import pytest
import torch
from torch import nn

from mmkd_plugin.models import CIFARVGG, CIFARResNet, CIFARWideResNet, MobileNetV1
from mmkd_plugin.models.staged_backbone import StagedBackbone, conv_norm

pytestmark = pytest.mark.openmmlab

# how to build a small one, and its number of stages
NETWORKS: dict[str, tuple[Callable[..., StagedBackbone], int]] = {
    'CIFARResNet': (lambda **kwargs: CIFARResNet(8, **kwargs), 3),
    'CIFARWideResNet': (lambda **kwargs: CIFARWideResNet(10, 2, **kwargs), 3),
    'CIFARVGG': (lambda **kwargs: CIFARVGG(8, **kwargs), 4),
    'MobileNetV1': (MobileNetV1, 4),
}


def toy(**kwargs):
    """Stages that add 1, 10 and 100, so that an output tells which stages made it."""

    class Add(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.number = number

        def forward(self, x):
            return x + self.number

    return StagedBackbone(nn.Identity(), [Add(1), Add(10), Add(100)], **kwargs)


@pytest.mark.parametrize(
    ('out_indices', 'values'),
    [(None, [111]), ((0,), [1]), ((1, 2), [11, 111]), ([0, 1, 2], [1, 11, 111])],
)
def test_out_indices_choose_the_stages(out_indices, values):
    outputs = toy(out_indices=out_indices)(torch.zeros(1))
    assert isinstance(outputs, tuple)
    assert [output.item() for output in outputs] == values


@pytest.mark.parametrize('out_indices', [(), (3,), (-1,), (1, 0), (1, 1)])
def test_wrong_out_indices_are_refused(out_indices):
    with pytest.raises(ValueError, match=r'out_indices=.*expected increasing.*from 0 \(layer1\) to 2 \(layer3\)'):
        toy(out_indices=out_indices)


@pytest.mark.parametrize('name', NETWORKS)
def test_error_names_the_network_and_its_last_stage(name):
    build, stages = NETWORKS[name]
    with pytest.raises(ValueError, match=rf'out_indices=\({stages},\) for {name}.*to {stages - 1}'):
        build(out_indices=(stages,))


@pytest.mark.parametrize('name', NETWORKS)
def test_stages_are_modules_whose_outputs_are_what_is_returned(name):
    build, stages = NETWORKS[name]
    backbone = build(out_indices=tuple(range(stages))).eval()
    tapped = []
    for number in range(1, stages + 1):
        backbone.get_submodule(f'layer{number}').register_forward_hook(
            lambda module, inputs, output: tapped.append(output)
        )
    returned = backbone(torch.randn(2, 3, 32, 32))
    assert len(tapped) == len(returned) == stages
    for tap, output in zip(tapped, returned, strict=True):
        assert tap is output
        assert (output >= 0).all()  # after the ReLU …
        assert (output == 0).any()  # … which had something to do


@pytest.mark.parametrize('name', NETWORKS)
def test_no_relu_overwrites_its_input(name):
    backbone = NETWORKS[name][0]()
    relus = [module for module in backbone.modules() if isinstance(module, nn.ReLU)]
    assert relus
    assert not any(relu.inplace for relu in relus)


def test_conv_norm_keeps_the_size_up_to_the_stride():
    for kernel_size in (1, 3):
        for stride in (1, 2):
            layers = nn.Sequential(*conv_norm(4, 6, kernel_size, stride=stride))
            assert layers(torch.zeros(1, 4, 8, 8)).shape == (1, 6, 8 // stride, 8 // stride)
