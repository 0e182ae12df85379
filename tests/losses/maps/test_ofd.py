"""OFD: margins and the partial distance by their formulas, hand values, and margins through real networks."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkd_plugin import distill
from mmkd_plugin.facts import TapShape
from mmkd_plugin.losses import OFDLoss, ofd_loss, ofd_margin
from mmkd_plugin.networks import Tap
from tests.conftest import batch, build, student_cfg, trained_like

from ..conftest import value_and_gradient
from ..naive_features import gradient, normal
from . import naive_connected as naive

STUDENT, TEACHER = [(3, 2, 4, 4), (3, 3, 2, 2)], [(3, 3, 4, 4), (3, 2, 2, 2)]
OTHER_SIZES = [(2, 2, 4, 3), (2, 3, 2, 2)], [(2, 2, 2, 2), (2, 3, 3, 2)]
#: beta, gamma: far below 0, around, negative gamma, almost never below 0
NORMS = [(0.0, 1.0), (1.0, 1.0), (-2.0, 0.5), (0.3, -0.7), (-0.3, -0.7), (2.9, 1.0), (3.05, 1.0), (3.2, -1.0), (-9, 1)]
STAGES = [f'backbone.layer{i}.1.relu:input' for i in (1, 2, 3, 4)]


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def teacher_of(channels: list[int]) -> list[nn.Module]:
    """Networks of a batch norm and a ReLU, whose weights are no defaults."""
    networks: list[nn.Module] = []
    for c in channels:
        norm = nn.BatchNorm2d(c)
        norm.weight.data, norm.bias.data = torch.linspace(-1, 1, c), torch.linspace(0.5, -0.5, c)
        networks.append(nn.Sequential(norm, nn.ReLU()))
    return networks


def built(student: Any, teacher: Any, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    loss = OFDLoss(**kwargs)
    networks = teacher_of([shape[1] for shape in teacher])
    taps = [TapShape.of(torch.empty(t), Tap.parse('1:input'), net) for t, net in zip(teacher, networks, strict=True)]
    loss.build_connectors(student, taps)
    return loss


@pytest.mark.parametrize(('beta', 'gamma'), NORMS)
def test_margin_is_the_mean_of_what_lies_below_zero(beta, gamma):
    assert ofd_margin(column(beta), column(gamma)).item() == pytest.approx(naive.margin(beta, gamma), rel=1e-5)


def test_hand_values_of_margins():
    assert ofd_margin(column(0), column(1)).item() == pytest.approx(-0.7978846, abs=1e-7)  # −√(2/π)
    assert ofd_margin(column(0), column(-2)).item() == pytest.approx(-2 * 0.7978846, abs=1e-6)
    assert ofd_margin(column(4), column(1)).item() == -3  # below 0 in 3 of 100,000
    assert ofd_margin(column(4), column(-1)).item() == -3
    assert ofd_margin(column(-50), column(1)).item() == pytest.approx(-50)
    # without spread: always beta, which is below 0 or not
    assert ofd_margin(column(-1, 0, 2), column(0, 0, 0)).tolist() == [-1, 0, 0]
    found = ofd_margin(torch.tensor([1e30, -1e30, 0.0]), torch.tensor([1e-30, 1e-30, 1e30]))
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert (found <= 0).all()


@pytest.mark.parametrize(
    'shapes', [((2, 2, 3, 2), (2, 2, 3, 2)), ((2, 2, 4, 4), (2, 2, 2, 2)), ((1, 2, 2, 3), (1, 2, 5, 4))]
)
def test_value_and_gradient_are_those_of_the_formula(shapes):
    student, teacher = normal(*shapes)
    margins = column(-0.8, -0.1)
    value, slopes = value_and_gradient(ofd_loss, student, teacher, margins)
    formula = partial(naive.partial, teacher=teacher.tolist(), margins=[complex(m) for m in margins.tolist()])
    assert value.item() == pytest.approx(formula(student.tolist()).real, rel=1e-9)
    torch.testing.assert_close(slopes, gradient(formula, student), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('shapes', [(STUDENT, TEACHER), OTHER_SIZES, (STUDENT[:1], TEACHER[:1])])
def test_with_connectors(shapes, training):
    student, teacher = normal(*shapes[0]), normal(*shapes[1], seed=1)
    loss = built(*shapes, loss_weight=0.7).double().train(training)
    targets = [tap.tolist() for tap in teacher]

    def formula(values: Any) -> complex:
        complexes = {name: [complex(m) for m in own] for name, own in values.items() if name.endswith('margin')}
        return 0.7 * naive.ofd(values | complexes, targets, training)

    naive.check(loss, student, lambda: loss(student, teacher), formula)


def test_hand_values():
    student, teacher = column(0.5, -2, -0.5, -0.9, 3), column(-3, -3, -0.2, -0.2, 1)
    values = [
        ofd_loss(s.view(1, 1, 1, 1), t.view(1, 1, 1, 1), column(-1)).item()
        for s, t in zip(student, teacher, strict=True)
    ]
    assert values == [2.25, 0, 0, 0, 4]
    for count in (1, 4):  # the sum over the map, the mean over images
        maps = [x.view(1, 1, 1, 5).repeat(count, 1, 1, 1) for x in (student, teacher)]
        assert ofd_loss(maps[0], maps[1], column(-1)).item() == 6.25


def test_zero_at_the_clipped_teacher_and_below_where_its_relu_gives_zero():
    (teacher,) = normal((3, 2, 4, 4))
    margins = column(-0.5, -1.5)
    target = torch.maximum(teacher, margins.view(2, 1, 1))
    assert ofd_loss(target, teacher, margins) == 0
    assert ofd_loss(torch.where(target < 0, target - 7, target), teacher, margins) == 0
    assert ofd_loss(target + 0.1, teacher, margins).item() == pytest.approx(32 * 0.01)


def test_connectors_start_as_published():
    loss = built([(2, 300, 1, 1)], [(2, 50, 1, 1)])
    (connector,) = loss.connectors
    assert connector.conv.bias is None
    assert connector.conv.weight.std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.02)
    assert repr(OFDLoss()) == repr(OFDLoss(norms=None, loss_weight=1e-3))


def test_deep_stages_count_most():
    loss = built(STUDENT, TEACHER, loss_weight=1.0).double()
    student, teacher = normal(*STUDENT), normal(*TEACHER, seed=1)
    first, second = (ofd_loss(c(s), t, c.margin) for c, s, t in zip(loss.connectors, student, teacher, strict=True))
    torch.testing.assert_close(loss(student, teacher), first / 2 + second)


class TestThroughNetworks:
    """Built by `distill()`, which loads and folds the teacher."""

    pytestmark = pytest.mark.openmmlab

    @staticmethod
    def margins(model: Any) -> list[Tensor]:
        return [connector.margin for connector in model.distill.losses.loss_ofd[0].connectors]

    def test_margins_are_of_the_loaded_weights_and_folding_leaves_them(self, student, teacher, tmp_path):
        torch.save(teacher.state_dict(), tmp_path / 't.pth')
        spec = {'model': student_cfg(), 'checkpoint': str(tmp_path / 't.pth')}
        model = distill(student, {'loss_ofd': {'type': 'OFDLoss', 'on': STAGES}}, teacher=spec)
        for margin in self.margins(model):  # of weights as they start: beta = 0, gamma = 1
            torch.testing.assert_close(margin, torch.full_like(margin, -0.7978846))
        before = copy.deepcopy(teacher)
        parameters = {id(p) for p in model.parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        total, values = model.parse_losses(model(**batch(), mode='loss'))
        assert values['loss_ofd'] > 0
        total.backward()
        optimizer.step()
        folded = model.distill.teachers['teacher'].model
        assert isinstance(folded.backbone.layer4[1].bn2, nn.Identity)
        for i, margin in enumerate(self.margins(model), start=1):
            norm = getattr(before.backbone, f'layer{i}')[1].bn2
            expected = [naive.margin(b, g, 4000) for b, g in zip(norm.bias.tolist(), norm.weight.tolist(), strict=True)]
            torch.testing.assert_close(margin, torch.tensor(expected), rtol=1e-4, atol=1e-4)
        weight = model.distill.losses.loss_ofd[0].connectors[0].conv.weight
        assert id(weight) in parameters
        assert weight.grad.any()

    def test_hand_value_through_a_folded_network(self, student, teacher):
        for module in teacher.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        model = distill(student, {'loss_ofd': {'type': 'OFDLoss', 'on': STAGES}}, teacher=teacher)
        model(**batch(), mode='loss')
        for margin in self.margins(model):
            torch.testing.assert_close(margin, torch.full_like(margin, -0.7978846))

    def test_named_norms(self, student, teacher):
        losses = {'loss_ofd': {'type': 'OFDLoss', 'on': STAGES[0], 'norms': ['backbone.layer1.0.bn2']}}
        norm = teacher.backbone.layer1[0].bn2
        model = distill(student, losses, teacher=teacher)
        model(**batch(), mode='loss')
        torch.testing.assert_close(self.margins(model)[0], ofd_margin(norm.bias, norm.weight))

    @pytest.mark.parametrize(
        ('change', 'told'),
        [
            ({'on': 'backbone.layer1'}, r"'backbone.layer1' of ImageClassifier given.*'backbone.layer1.1.relu:input'"),
            ({'on': 'backbone.layer2.0.conv1'}, r"'backbone.layer2.0.conv1' of .*name the batch norm of each tap"),
            (
                {'on': STAGES[0], 'norms': ['backbone.layer2.1.bn2']},
                r"'backbone.layer2.1.bn2' has 8 channels.*input' 4",
            ),
            ({'on': STAGES[0], 'norms': ['backbone.layer1.1.conv2']}, 'a Conv2d of ImageClassifier, expected the path'),
            ({'on': STAGES[0], 'norms': ['a', 'b']}, r"norms=\['a', 'b'\] given, expected 1 paths"),
            ({'on': 'neck'}, 'expected as many maps'),
        ],
    )
    def test_mistakes_are_told_at_build(self, student, teacher, change, told):
        with pytest.raises(ValueError, match=rf"losses\['loss_ofd'\].*{told}"):
            distill(student, {'loss_ofd': {'type': 'OFDLoss', **change}}, teacher=teacher)

    def test_a_teacher_without_batch_norms(self, student):
        cfg = student_cfg()
        cfg['backbone'] = {**cfg['backbone'], 'norm_cfg': {'type': 'GN', 'num_groups': 2}}
        with pytest.raises(ValueError, match='expected a place before a ReLU and behind a batch norm'):
            distill(student, {'loss_ofd': {'type': 'OFDLoss', 'on': STAGES}}, teacher=trained_like(build(cfg)))


def test_shapes_that_know_no_network_are_refused():
    with pytest.raises(ValueError, match=r'shapes that know where they were read.*TapShape.of'):
        OFDLoss().build_connectors(STUDENT, TEACHER)


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match='expected as many maps'):
        OFDLoss().build_connectors(STUDENT, TEACHER[:1])
    with pytest.raises(ValueError, match='1 student and 2 teacher stages given, expected 2 of each'):
        built(STUDENT, TEACHER)(normal(*STUDENT)[:1], normal(*TEACHER))


def test_a_norm_without_weights():
    loss = OFDLoss()
    network = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.ReLU())
    loss.build_connectors([(2, 2, 4, 4)], [TapShape.of(torch.empty(2, 3, 4, 4), Tap.parse('1:input'), network)])
    (connector,) = loss.connectors
    torch.testing.assert_close(connector.margin, torch.full((3,), -0.7978846))


@pytest.mark.parametrize('other', [((2, 2, 3, 3), (3,)), ((2, 3, 3, 3), (2,)), ((2, 3, 3, 3), (1, 3))])
def test_other_channels_are_refused(other):
    teacher, margins = other
    with pytest.raises(ValueError, match='expected as many channels of each') as error:
        ofd_loss(torch.zeros(2, 3, 3, 3), torch.zeros(teacher), torch.zeros(margins))
    assert str(teacher) in str(error.value)
