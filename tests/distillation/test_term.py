import copy
from typing import Any

import pytest
import torch

from mmkd_plugin.distillation.rows import locate
from mmkd_plugin.distillation.term import Term
from mmkd_plugin.facts import Batch, Progress
from mmkd_plugin.losses import DistillLoss
from mmkd_plugin.networks import BoxBranch, Network, Tap

NOTHING = Batch(torch.zeros(2, 1, 1, 1))


class Anything(Network):
    """A network of which nothing is known."""

    def rows(self, tap):
        return None


NETWORKS = {side: Anything(None, side) for side in ('student', 't', 'a', 'b')}


def sides(student, teacher):
    return {'student': student, 't': teacher}


def test_layers_are_summed():
    term = Term('loss_kd', {'type': 'KDLoss', 'on': ['a', 'b'], 'loss_weight': 2.0}, ['t'])
    assert len(term) == 2
    one = {Tap('a'): torch.randn(3, 4), Tap('b'): torch.randn(3, 4)}
    other = {Tap('a'): torch.randn(3, 4), Tap('b'): torch.randn(3, 4)}
    expected = sum(module(one[tap], other[tap]) for module, tap in zip(term, one, strict=True))
    assert torch.equal(term(sides(one, other), NOTHING), expected)


def test_layers_that_are_compared_one_by_one_are_as_many():
    with pytest.raises(ValueError, match=r'expected as many layers of each side: KDLoss compares them one by one'):
        Term('loss_kd', {'type': 'KDLoss', 'on': {'student': ['a'], 'teacher': ['b', 'c']}}, ['t'])


class Related(DistillLoss):
    relates_layers = True

    def build_connectors(self, student, teacher):
        self.seen = [(str(shape.tap), tuple(shape)) for shape in (*student, *teacher)]

    def forward(self, student, teacher):
        return self.loss_weight * sum((s.mean() - t.mean()) ** 2 for s in student for t in teacher)


def test_related_layers_may_be_of_any_number():
    term = Term('loss_r', {'type': Related, 'on': {'student': ['a'], 'teacher': ['b', 'c']}}, ['t'])
    values = sides({Tap('a'): torch.ones(2, 3)}, {Tap('b'): torch.zeros(2, 5), Tap('c'): torch.full((2, 1, 1), 3.0)})
    locate(term, NETWORKS)
    term.connect(values, NOTHING, NETWORKS)
    assert term[0].seen == [('a', (2, 3)), ('b', (2, 5)), ('c', (2, 1, 1))]
    assert term(values, NOTHING) == 1 + 4


class Several(DistillLoss):
    sides = ('student', 'teachers')

    def forward(self, student, teachers):
        return sum(weight * teacher.mean() for weight, teacher in enumerate(teachers.values(), 1)) + 0 * student.mean()


def test_a_loss_of_several_sources_gets_them_by_name():
    for on in ('x', {'student': 'x', 'a': 'x', 'b': 'x'}):
        term = Term('loss_s', {'type': Several, 'on': on}, ['a', 'b'])
        assert term.sources == ['a', 'b']
        values = {'student': {Tap('x'): torch.zeros(2)}, 'a': {Tap('x'): torch.ones(2)}, 'b': {Tap('x'): torch.ones(2)}}
        assert term(values, NOTHING) == 3


def test_a_loss_may_read_no_source():
    class Alone(DistillLoss):
        sides = ('student',)

        def forward(self, student):
            return student.square().mean()

    term = Term('loss_a', {'type': Alone, 'on': 'x'}, [])
    assert (term.sources, term({'student': {Tap('x'): torch.full((2, 2), 3.0)}}, NOTHING)) == ([], 9.0)


def test_a_loss_may_read_a_source_alone_if_it_learns():
    class Mute(DistillLoss):
        sides = ('teacher',)

        def forward(self, teacher):
            return teacher.mean()

    term = Term('loss_m', {'type': Mute, 'on': 'x'}, ['t'])
    assert list(term.on) == ['t']
    with pytest.raises(ValueError, match='it would train nothing'):
        term.connect({'t': {Tap('x'): torch.ones(2, 3)}}, NOTHING, NETWORKS)


def test_loss_that_returns_no_scalar_is_refused():
    class Vector(DistillLoss):
        def forward(self, student, teacher):
            return student.mean(1)

    term = Term('loss_v', {'type': Vector, 'on': 'a'}, ['t'])
    with pytest.raises(ValueError, match=r"losses\['loss_v'\] \(Vector\) cannot work on student 'a' \(2, 3\).*scalar"):
        term.connect(sides({Tap('a'): torch.ones(2, 3)}, {Tap('a'): torch.ones(2, 3)}), NOTHING, NETWORKS)


@pytest.mark.parametrize(
    ('attribute', 'value'), [('sides', ('student', 'techer')), ('sides', 'student'), ('sides', ()), ('needs', 'labels')]
)
def test_a_class_says_what_it_means(attribute, value):
    with pytest.raises(TypeError, match=rf'Odd: {attribute}=.* given, expected a tuple of words'):
        type('Odd', (DistillLoss,), {attribute: value})


def test_weight_zero_is_off():
    term = Term('loss_kd', {'type': 'KDLoss', 'on': 'a', 'loss_weight': 0}, ['t'])
    assert term.factor(Progress()) == 0
    term[0].loss_weight = 0.5  # type: ignore[assignment]
    assert term.factor(Progress()) == 1


def test_names_are_words():
    name: Any = 3
    with pytest.raises(ValueError, match=r"losses=\{'3': \.\.\.\} given"):
        Term(name, {'type': 'KDLoss', 'on': 'a'}, ['t'])


def test_what_a_loss_is_may_depend_on_its_arguments():
    class Either(DistillLoss):
        def __init__(self, related=False, loss_weight=1.0):
            super().__init__(loss_weight)
            self.relates_layers = related  # type: ignore[misc]

    assert len(Term('loss_e', {'type': Either, 'on': ['a', 'b']}, ['t'])) == 2
    assert len(Term('loss_e', {'type': Either, 'on': ['a', 'b'], 'related': True}, ['t'])) == 1


def test_rois_need_a_learner():
    class Alone(DistillLoss):
        sides = ('teacher',)

    class Rois(Anything):
        def rows(self, tap):
            return BoxBranch()

    term = Term('loss_a', {'type': Alone, 'on': 'x'}, ['t'])
    with pytest.raises(ValueError, match='reads RoIs, which are those that a learner samples'):
        locate(term, {'t': Rois(None, 't')})


def test_needs_are_known():
    class Wishful(DistillLoss):
        needs = ('weather',)

    with pytest.raises(ValueError, match=r"Wishful needs 'weather'; known: labels, .*register_need makes more known"):
        Term('loss_w', {'type': Wishful, 'on': 'a'}, ['t'])


def test_learners_are_peers():
    with pytest.raises(ValueError, match=r"learner='t', expected one of \['student', 'p'\]"):
        Term('loss_kd', {'type': 'KDLoss', 'on': 'a', 'learner': 't'}, ['t', 'p'], ['p'])


@pytest.mark.parametrize(
    ('through', 'match'),
    [
        (3, r"through=3, expected 'module.path' of the source"),
        (['b', 'c'], r'needs as many taps of the learner, and one source'),
    ],
)
def test_bad_through(through, match):
    with pytest.raises(ValueError, match=match):
        Term('loss_kd', {'type': 'KDLoss', 'on': 'a', 'through': through}, ['t'])


def test_connectors_follow_the_students_precision():
    term = Term('loss_hint', {'type': 'FitNetLoss', 'on': 'a'}, ['t'])
    values = sides({Tap('a'): torch.randn(4, 3, 2, 2, dtype=torch.bfloat16)}, {Tap('a'): torch.randn(4, 5, 2, 2)})
    term.connect(values, NOTHING, NETWORKS)
    assert {p.dtype for p in term.parameters()} == {torch.bfloat16}
    assert term(values, NOTHING).dtype == torch.float32


def test_tensors_without_rows_give_zero_and_leave_statistics_alone():
    term = Term('loss_hint', {'type': 'FitNetLoss', 'on': 'a'}, ['t'])
    taps = {Tap('a'): torch.randn(4, 3, 2, 2)}
    term.connect(sides(taps, taps), NOTHING, NETWORKS)
    before = copy.deepcopy(term.state_dict())
    empty = {Tap('a'): torch.randn(0, 3, 2, 2, requires_grad=True)}
    value = term(sides(empty, empty), NOTHING)
    value.backward()
    assert value == 0
    assert all(p.grad is not None and not p.grad.any() for p in term.parameters())
    torch.testing.assert_close(term.state_dict(), before, rtol=0, atol=0)


def test_a_loss_that_gathers_sees_tensors_without_rows(monkeypatch):
    """Other processes may have some, and wait for this one's."""
    term = Term('loss_rkd', {'type': 'RKDLoss', 'on': 'a', 'gather': True}, ['t'])
    joined = []

    def of_all(*values):
        joined.append([len(value) for value in values])
        return tuple(torch.cat([value, torch.eye(3)]) for value in values)

    monkeypatch.setattr('mmkd_plugin.losses.gather.gather_rows', of_all)
    empty = {Tap('a'): torch.randn(0, 3, requires_grad=True)}
    value = term(sides(empty, {Tap('a'): torch.randn(0, 3)}), NOTHING)
    assert joined == [[0, 0]]
    assert value == 0
    value.backward()
