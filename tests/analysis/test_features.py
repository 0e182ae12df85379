"""A tapped layer as a function: the same values, faster, and nothing left behind."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope

from mmkd_plugin.analysis.discarding import Setting, discard
from mmkd_plugin.analysis.features import Tapped, made_faster, still
from mmkd_plugin.networks import Tap, network_of
from tests.conftest import build, student_cfg, trained_like
from tests.detection import faster_rcnn_cfg

pytestmark = pytest.mark.openmmlab


def images(n=3, channels=1, size=28):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    'tap', ['backbone.layer2', 'backbone.layer4.1.conv2', 'backbone.layer3.0.relu:input', 'head.fc']
)
def test_folding_changes_no_result(tap):
    """Of taps behind a batch norm, before one, and on a value that is overwritten in place."""
    model = trained_like(build(student_cfg()))
    with still(model):
        tapped = Tapped(network_of(model), Tap.parse(tap), images())
        faster = made_faster(tapped, images())
        assert faster is not tapped
        with torch.no_grad():
            torch.testing.assert_close(faster(images()), tapped(images()), rtol=1e-4, atol=1e-4)
        setting = Setting(cells=4, noise=3, steps=5)
        expected, found = discard(tapped, images(), setting), discard(faster, images(), setting)
        torch.testing.assert_close(found.sigma, expected.sigma, rtol=1e-3, atol=0)


def test_the_network_is_left_as_it_was():
    model = build(student_cfg())
    model.train()
    model.head.fc.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with still(model):
        tapped = Tapped(network_of(model), Tap.parse('neck'), images())
        discard(made_faster(tapped, images()), images(), Setting(cells=4, noise=2, steps=2))
        assert not model.training
    assert model.training
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ['head.fc.weight']
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_pass_ends_at_the_tap():
    model = build(student_cfg())
    ran = []
    model.head.fc.register_forward_hook(lambda *_: ran.append(1))
    with still(model):
        tapped = Tapped(network_of(model), Tap.parse('backbone.layer1'), images())
        assert tapped.shape == (4, 28, 28)
        ran.clear()
        tapped(images())
    assert not ran


def test_necks_of_detectors_and_not_their_rois():
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(ConfigDict(faster_rcnn_cfg()))
    with still(model):
        neck = Tapped(network_of(model), Tap.parse('neck[1]'), images(2, 3, 64))
        assert neck(images(2, 3, 64)).shape == (2, 16, 8, 8)
        for tap, message in (
            ('roi_head.bbox_head.fc_cls', r'has a row for each RoI, expected one for each image'),
            ('neck', r"name one of them as 'neck\[0\]'"),
            ('backbone.layer9', r"no module 'backbone.layer9'"),
        ):
            with pytest.raises((TypeError, ValueError), match=message):
                Tapped(network_of(model), Tap.parse(tap), images(2, 3, 64))
