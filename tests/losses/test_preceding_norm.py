"""Which batch norm stands before a ReLU: in the networks of the published tables, and where it is refused."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from mmkd_plugin.losses.preceding_norm import find_norm, named_norm
from mmkd_plugin.networks import Tap
from tests.configs.reading import TABLE, network, record

NETWORKS = {
    'resnet20': ('cifar100', 'norm2'),
    'wrn-16-2': ('cifar100', 'norm'),
    'vgg13': ('cifar100', None),
    'resnet18': ('8xb32_in1k', 'bn2'),
    'resnet50': ('8xb32_in1k', 'bn3'),
    'mobilenet_v1': ('8xb32_in1k', '4'),
    'resnet_teacher': ('digits', 'bn2'),
}


def find(model: nn.Module, tap: str) -> str:
    return find_norm(model, Tap.parse(tap))


def named(**children: nn.Module) -> nn.Module:
    """A block of which only the structure counts."""
    block = nn.Module()
    for name, child in children.items():
        block.add_module(name, child)
    return block


@pytest.mark.openmmlab
@pytest.mark.parametrize('name', NETWORKS)
def test_its_shift_is_a_shift_of_what_is_read(name):
    setting, norm_name = NETWORKS[name]
    model = copy.deepcopy(network(name, setting)).eval()
    taps = [f'backbone.layer{i}.{module}' for i, module in enumerate(TABLE.networks[name]['before_relu'], start=1)]
    images = torch.rand(1, next(model.parameters()).size(1), 32, 32, generator=torch.Generator().manual_seed(0))
    for tap in taps:
        path = find(model, tap)
        assert 'downsample' not in path
        assert 'shortcut' not in path
        assert norm_name in (None, path.rpartition('.')[2])
        norm = named_norm(model, path)
        before = record(model, [tap], lambda: model(images))[tap]
        with torch.no_grad():
            norm.bias.add_(0.25)
        after = record(model, [tap], lambda: model(images))[tap]
        torch.testing.assert_close(after, before + 0.25, rtol=1e-4, atol=1e-4)


@pytest.mark.openmmlab
def test_conv_modules():
    from mmcv.cnn import ConvModule

    model = nn.Sequential(
        ConvModule(3, 4, 1, norm_cfg={'type': 'BN'}),
        ConvModule(4, 5, 1),
        ConvModule(5, 6, 1, norm_cfg={'type': 'BN'}, order=('act', 'conv', 'norm')),
        ConvModule(6, 7, 1, norm_cfg={'type': 'GN', 'num_groups': 7}),
    )
    assert find(model, '0.activate:input') == '0.bn'
    for number in (1, 2, 3):
        with pytest.raises(ValueError, match='expected a place before a ReLU and behind a batch norm'):
            find(model, f'{number}.activate:input')


def test_of_a_block_the_last_one_of_the_main_path():
    conv = nn.Conv2d(3, 3, 1)
    mmpretrain = named(bn1=nn.BatchNorm2d(3), conv1=conv, bn2=nn.BatchNorm2d(3), relu=nn.ReLU(),
                       downsample=nn.Sequential(conv, nn.BatchNorm2d(3)))  # fmt: skip
    torchvision = named(bn1=nn.BatchNorm2d(3), relu=nn.ReLU(), conv2=conv, bn2=nn.BatchNorm2d(3))
    beside = named(bn1=nn.BatchNorm2d(3), bn2=nn.BatchNorm2d(3), relu=nn.ReLU(), shortcut_bn=nn.BatchNorm2d(3))
    for block in (mmpretrain, torchvision, beside):
        assert find(named(block=block), 'block.relu:input') == 'block.bn2'
        assert find(block, 'relu:input') == 'bn2'
    two = named(norm1=nn.BatchNorm2d(3), relu1=nn.ReLU(), norm2=nn.BatchNorm2d(3), relu2=nn.ReLU(inplace=True))
    assert find(two, 'relu1:input') == 'norm1'
    assert find(two, 'relu2:input') == 'norm2'
    assert find(two, 'norm1') == 'norm1'


REFUSED = {
    'a convolution before the ReLU': (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU()), '2:input'),
    'the ReLU before the norm': (named(conv=nn.Conv2d(3, 3, 1), relu=nn.ReLU(), bn=nn.BatchNorm2d(3)), 'relu:input'),
    'an earlier call': (named(bn=nn.BatchNorm2d(3), relu=nn.ReLU()), 'relu@0:input'),
    'no ReLU': (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)), '1:input'),
    'another norm': (nn.Sequential(nn.GroupNorm(3, 3), nn.ReLU()), '1:input'),
    'no order': (nn.ModuleList([nn.BatchNorm2d(3), nn.ReLU()]), '1:input'),
    'nothing before': (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), '0:input'),
    'the second of two in a row': (
        named(bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 3, 1), relu1=nn.ReLU(), relu2=nn.ReLU()), 'relu1:input'),
}  # fmt: skip


@pytest.mark.parametrize('case', REFUSED)
def test_what_is_not_plain_is_refused(case):
    model, tap = REFUSED[case]
    with pytest.raises(
        ValueError, match=r"expected a place before a ReLU.*name the batch norm.*norms=\['path'"
    ) as error:
        find(model, tap)
    assert f"'{tap}' of {type(model).__name__} given" in str(error.value)


def test_behind_a_relu_the_place_before_it_is_advised():
    block = named(bn1=nn.BatchNorm2d(3), bn2=nn.BatchNorm2d(3), relu=nn.ReLU())
    model = named(layer1=nn.Sequential(block, nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(3), act=nn.ReLU()))))
    for tap, advice in [
        ('layer1', 'layer1.1.act:input'),
        ('layer1.0', 'layer1.0.relu:input'),
        ('layer1.1.act', 'layer1.1.act:input'),
    ]:
        with pytest.raises(ValueError, match=f"write '{advice}'"):
            find(model, tap)


def test_a_norm_by_its_name():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    assert named_norm(model, '1') is model[1]
    for path, told in [('0', 'which is a Conv2d'), ('bn', 'which is no module')]:
        with pytest.raises(ValueError, match=f"{told} of Sequential, expected the path of a batch norm, such as '1'"):
            named_norm(model, path)
    with pytest.raises(ValueError, match='and there is none'):
        named_norm(nn.Sequential(nn.ReLU()), '0')
