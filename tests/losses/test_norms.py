"""Connectors train on a last batch of one image."""

import copy

import pytest
import torch
from torch import nn

from mmkd_plugin.losses import FitNetLoss, ReviewKDLoss
from mmkd_plugin.losses.norms import ConnectorNorm1d, ConnectorNorm2d

CASES = [(ConnectorNorm1d, nn.BatchNorm1d, ()), (ConnectorNorm2d, nn.BatchNorm2d, (1, 1))]


@pytest.mark.parametrize(('norm', 'torchs', 'size'), CASES)
class TestNorms:
    def test_several_rows_are_torchs(self, norm, torchs, size):
        ours, theirs = norm(3), torchs(3)
        for step in range(3):
            x = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(step))
            assert torch.equal(ours(x), theirs(x))
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)

    def test_one_row_uses_the_running_statistics_and_leaves_them(self, norm, torchs, size):
        ours = norm(3)
        ours(torch.randn(8, 3, *size) * 5 + 2)
        before = copy.deepcopy(ours.state_dict())
        x = torch.randn(1, 3, *size, requires_grad=True)
        expected = copy.deepcopy(ours).eval()(x)
        got = ours(x)
        assert torch.equal(got, expected)
        torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)
        got.sum().backward()
        assert x.grad is not None
        assert x.grad.any()
        assert ours.weight.grad is not None


@pytest.mark.parametrize('shape', [(8,), (8, 1, 1)])
@pytest.mark.parametrize('loss', [FitNetLoss(), FitNetLoss('conv_bn'), ReviewKDLoss()])
def test_losses_on_one_image(loss, shape):
    loss = copy.deepcopy(loss)
    related = loss.relates_layers
    student, teacher = torch.randn(1, *shape, requires_grad=True), torch.rand(1, *shape)
    shapes = torch.Size((2, *shape))
    loss.build_connectors(*([[shapes], [shapes]] if related else [shapes, shapes]))
    value = loss(*([[student], [teacher]] if related else [student, teacher]))
    assert value.isfinite()
    value.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())
