import copy
from typing import Any

import pytest
import torch

from mmkd_plugin import distill
from mmkd_plugin.teachers import precision
from mmkd_plugin.teachers.precision import LowWeights, lost_of_spread
from tests.detection import DKD, batch, cascade_rcnn_cfg, detector, faster_rcnn_cfg, one_stage_cfg

NST: dict[str, Any] = {'loss_nst': {'type': 'NSTLoss', 'on': 'backbone.layer3'}}
HINT: dict[str, Any] = {
    'loss_hint': {'type': 'FitNetLoss', 'on': [f'neck[{n}]' for n in range(4)], 'regressor': 'identity'}
}
ROI: dict[str, Any] = {'loss_roi': {'type': 'NSTLoss', 'on': 'roi_head.bbox_roi_extractor'}}
BF16 = {'type': 'bf16', 'tolerance': 0.5}

pytestmark = pytest.mark.openmmlab


@pytest.fixture(autouse=True)
def _any_cpu_will_do(monkeypatch):
    monkeypatch.setattr(precision, 'computes_fast', lambda *_: True)


def values(student, teacher, losses, **spec):
    """Losses of one step, and what was read of the teacher."""
    model = distill(copy.deepcopy(student), losses, teacher={'model': copy.deepcopy(teacher), **spec})
    source = model.distill.sources['teacher']
    read, seen = source.read, {}
    source.read = lambda *args: seen.update(read(*args)) or seen
    torch.manual_seed(5)
    return model(**batch(), mode='loss'), seen, source


def compare(student, teacher, losses, **spec):
    full, expected, _ = values(student, teacher, losses)
    low, got, source = values(student, teacher, losses, precision=BF16, **spec)
    for tap, value in got.items():
        assert value.dtype == torch.float32
        assert value.shape == expected[tap].shape
        assert 0 < lost_of_spread(value, expected[tap]) < 0.15, tap
    for name in losses:
        torch.testing.assert_close(low[name], full[name], rtol=0.1, atol=1e-4)
    return source


@pytest.mark.parametrize('optimize', [True, False])
def test_logits_and_features_of_faster_rcnn(optimize):
    student, teacher = detector(faster_rcnn_cfg()), detector(faster_rcnn_cfg(), 1)
    source = compare(student, teacher, {**DKD, **NST, **HINT, **ROI}, optimize=optimize)
    assert source.model.roi_head.bbox_head.shared_fcs[0].weight.dtype == torch.bfloat16


def test_a_stage_of_a_cascade():
    losses = {'loss_dkd': {**DKD['loss_dkd'], 'on': 'roi_head.bbox_head.1.fc_cls'}}
    compare(detector(cascade_rcnn_cfg()), detector(cascade_rcnn_cfg(), 1), losses)


def test_dense_heads_of_gfl():
    taps = ['bbox_head[0][1]', 'bbox_head[1][1]']
    losses = {**HINT, 'loss_scores': {'type': 'FitNetLoss', 'on': taps, 'regressor': 'identity'}}
    teacher = detector(one_stage_cfg('GFL'), 1)
    with torch.no_grad():  # random ones tell places less apart than trained ones, beside a constant part of -4.6
        teacher.bbox_head.gfl_cls.weight.mul_(10)
    compare(detector(one_stage_cfg('GFL')), teacher, losses)


def test_rois_keep_their_coordinates():
    """A bfloat16 counts pixels beyond 256 by twos: what is cut out must be cut where the student cut it."""
    student, teacher = detector(faster_rcnn_cfg()), detector(faster_rcnn_cfg(), 1)
    model = distill(student, DKD, teacher={'model': teacher, 'precision': BF16})
    seen = []
    layer = model.distill.sources['teacher']
    layer.get_ready(torch.zeros(1))
    layer.model.roi_head.bbox_roi_extractor.roi_layers[0].register_forward_pre_hook(lambda _, args: seen.extend(args))
    model(**batch(), mode='loss')
    features, rois = seen[:2]
    own = model.distill.regions[next(iter(model.distill.regions))].rois
    assert features.dtype == rois.dtype == torch.float32
    assert all((own == row).all(1).any() for row in rois)


def test_compiled_operations_and_what_lies_in_them_stay_float32():
    from mmcv.ops import ModulatedDeformConv2dPack

    deformable = ModulatedDeformConv2dPack(8, 4, 3, padding=1).eval().requires_grad_(False)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), deformable, torch.nn.Conv2d(4, 2, 1)).requires_grad_(False)
    x = torch.randn(2, 3, 8, 8)
    expected = model(x)
    LowWeights(model, torch.bfloat16)
    assert {p.dtype for p in deformable.parameters()} == {torch.float32}
    with torch.autocast('cpu', torch.bfloat16):
        got = model(x)
    assert got.dtype == torch.bfloat16
    assert lost_of_spread(got, expected) < 0.05
