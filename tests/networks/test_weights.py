"""Weights of a layer: of convolutions and linear layers, and not of what stands beside them."""

import pytest
import torch
from torch import nn

from mmkd_plugin.networks import flat, weights_at


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 3), nn.ReLU()))


def test_which_they_are():
    net = network()
    assert [id(w) for w in weights_at(net, '2')] == [id(net[2][0].weight)]
    assert [id(w) for w in weights_at(net, '')] == [id(net[0].weight), id(net[2][0].weight)]
    values = flat(weights_at(net, ''))
    assert torch.equal(values, torch.cat([net[0].weight.flatten(), net[2][0].weight.flatten()]))
    assert not values.requires_grad


@pytest.mark.parametrize(('path', 'message'), [('1', 'has no weights of a convolution'), ('3', "no module '3'")])
def test_refusals(path, message):
    with pytest.raises(ValueError, match=message):
        weights_at(network(), path)
