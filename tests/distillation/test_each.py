"""`learner='each'`: every learner learns from every other one."""

import copy
from typing import Any

import pytest
import torch

from mmkd_plugin import distill
from mmkd_plugin.losses import kd_loss
from tests.conftest import batch, build, student_cfg

pytestmark = pytest.mark.openmmlab
EACH: dict[str, Any] = {'type': 'KDLoss', 'on': 'head.fc', 'temperature': 1.0, 'learner': 'each'}


def together(student, losses, names=('peer',), **more):
    peers = {name: {'type': 'Peer', 'model': build(student_cfg(), 7 + number)} for number, name in enumerate(names)}
    return distill(student, losses, teachers={**peers, **more}).train()


def logits(model):
    nets = {'student': model, **model.distill.peers}
    return {name: copy.deepcopy(net)(batch()['inputs'], mode='tensor') for name, net in nets.items()}


def test_two_learn_from_each_other_as_by_two_entries(student):
    entries = {'loss_kl_student': {**EACH, 'learner': 'student'}, 'loss_kl_peer': {**EACH, 'learner': 'peer'}}
    by_hand = together(copy.deepcopy(student), entries)
    short = together(student, {'loss_kl': EACH})
    assert [(term.name, term.learner, term.sources) for term in short.distill.terms] == [
        ('loss_kl_student', 'student', ['peer']), ('loss_kl_peer', 'peer', ['student'])
    ]  # fmt: skip
    values, expected = (model(**batch(), mode='loss') for model in (short, by_hand))
    torch.testing.assert_close(values, expected, rtol=0, atol=0)


def test_three_learn_the_mean_of_two_divergences(student):
    model = together(student, {'loss_kl': {**EACH, 'loss_weight': 3.0}}, 'ab')
    z = logits(model)
    losses = model(**batch(), mode='loss')
    names = [(one, other) for one in z for other in z if one != other]
    assert list(losses) == ['loss', 'a.loss', 'b.loss', *(f'loss_kl_{one}_from_{other}' for one, other in names)]
    for one, other in names:
        expected = 3 * kd_loss(z[one], z[other], 1.0) / 2
        torch.testing.assert_close(losses[f'loss_kl_{one}_from_{other}'], expected)


def test_the_mean_of_divergences_is_not_that_to_the_mean():
    """Hand values: uniform, and two that lean to either side."""
    p = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]]).log()
    divergences = [kd_loss(p[:1], p[n : n + 1], 1.0) for n in (1, 2)]
    torch.testing.assert_close(sum(divergences) / 2, torch.tensor(0.1308120))


def test_no_loss_of_one_reaches_another(student):
    model = together(student, {'loss_kl': EACH}, 'ab')
    losses = model(**batch(), mode='loss')
    for one in ('student', 'a', 'b'):
        own = [value for name, value in losses.items() if name.startswith((f'loss_kl_{one}', f'{one}.'))]
        own += [losses['loss']] if one == 'student' else []
        model.zero_grad()
        sum(own).backward(retain_graph=True)
        for name, parameter in model.named_parameters():
            owner = name.split('.')[2] if name.startswith('distill.') else 'student'
            assert (parameter.grad is not None) == (owner == one), name


def test_places_by_learner_and_layers_with_learnable_parts(student):
    """Student and peer are compared at other layers, layer by layer, through regressors of their own."""
    places = [{'student': 'backbone.layer1', 'peer': 'backbone.layer2'}, 'backbone.layer3']
    hint = {'type': 'FitNetLoss', 'on': places, 'learner': 'each', 'regressor': 'conv'}
    model = together(student, {'loss_hint': hint})
    first, second = model.distill.terms
    assert [str(tap) for tap in first.taps('student')] == ['backbone.layer1', 'backbone.layer3']
    assert [str(tap) for tap in second.taps('peer')] == ['backbone.layer2', 'backbone.layer3']
    sum(model(**batch(), mode='loss').values()).backward()
    assert all(p.grad is not None for term in (first, second) for p in term.parameters())
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_a_loss_of_several_sources_gets_all_others_and_no_frozen_teacher(student, teacher):
    loss = {'type': 'MultiHeadGraphStandIn', 'on': 'head.fc', 'learner': 'each'}
    from mmengine.registry import MODELS

    from mmkd_plugin import DistillLoss

    class StandIn(DistillLoss):
        sides = ('student', 'teachers')

        def forward(self, student, teachers):
            self.seen = list(teachers)
            return student.square().mean()

    MODELS.register_module(name='MultiHeadGraphStandIn', module=StandIn, force=True)
    alone = {**EACH, 'learner': 'student', 'on': {'student': 'head.fc', 'frozen': 'head.fc'}}
    model = together(student, {'loss_all': loss, 'loss_kd': alone}, 'ab', frozen=teacher)
    model(**batch(), mode='loss')
    terms = {term.name: term[0].seen for term in model.distill.terms if term.name != 'loss_kd'}
    assert terms == {
        'loss_all_student': ['a', 'b'], 'loss_all_a': ['student', 'b'], 'loss_all_b': ['student', 'a']
    }  # fmt: skip


@pytest.mark.parametrize(
    ('losses', 'match'),
    [
        ({'loss_kl': {**EACH, 'teacher': 'peer'}}, "has teacher='peer': every other learner teaches"),
        ({'loss_kl': {**EACH, 'on': {'student': 'head.fc'}}}, r"a place for each of \['student', 'peer'\] and nobody"),
        ({'loss_kl': EACH, 'loss_kl_peer': EACH}, r"would become \['loss_kl_peer'\], which are there"),
        ({'loss_kl': {'type': 'KDLoss', 'learner': 'each'}}, 'with at least `type` and `on`'),
        ({'loss_kl': {'type': 'MHGDHeadsLoss', 'on': 'head.fc', 'learner': 'each'}}, 'compares no learner with'),
    ],
)
def test_mistakes(student, losses, match):
    with pytest.raises(ValueError, match=match):
        together(student, losses)


def test_nobody_to_learn_from(student, teacher):
    with pytest.raises(ValueError, match=r"learner='each' needs peers, and there are none"):
        distill(student, {'loss_kl': EACH}, teacher=teacher)


def test_other_classes_are_told_at_build(student):
    cfg = student_cfg()
    cfg['head'] = {**cfg['head'], 'num_classes': 7}
    with pytest.raises(ValueError, match=r"student 'head.fc' \(2, 10\), peer 'head.fc' \(2, 7\).*same class"):
        distill(student, {'loss_kl': EACH}, teachers={'peer': {'type': 'Peer', 'model': build(cfg)}})
