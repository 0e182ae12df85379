"""Measures over checkpoints: hand values, naive forms, invariances."""

import itertools

import pytest
import torch

from mmkd_plugin.analysis.learning import changes, effective, learning_speed, path_length, stability


class TestPath:
    def test_hand_values(self):
        path = path_length([torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.0])])
        torch.testing.assert_close(path, torch.tensor([0.0, 0.0, 1.0]).double())

    def test_never_falls_and_has_no_unit(self):
        """Reference, section 27, test 5."""
        weights = list(torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0)))
        path = path_length(weights)
        assert bool((path.diff() > 0).all())
        torch.testing.assert_close(path_length([7 * w for w in weights]), path)
        naive, length = [0.0], 0.0
        for before, after in itertools.pairwise(weights):
            length += float(((after - before) ** 2).sum().sqrt())
            naive.append(length / float((weights[0] ** 2).sum().sqrt()))
        assert path.tolist() == pytest.approx(naive, rel=1e-6)

    def test_refusals(self):
        for weights in ([], [torch.zeros(2)]):
            with pytest.raises(ValueError, match='expected some, of which the first is not all zero'):
                path_length(weights)


class TestSpeed:
    def test_hand_values(self):
        counts = torch.tensor([[0, 5], [4, 5], [4, 1]])
        found = learning_speed(counts, torch.tensor([1.0, 2.0, 6.0]))
        assert found.checkpoint.tolist() == [1, 0]  # the first of those with the most
        assert (found.mean, found.std, found.variance) == pytest.approx((1.5, 0.5, 0.25))

    def test_refusals(self):
        counts = torch.ones(2, 3)
        for path in (torch.ones(3), torch.tensor([2.0, 1.0])):
            with pytest.raises(ValueError, match='a path for each checkpoint that never falls'):
                learning_speed(counts, path)


class TestStability:
    def test_hand_values(self):
        """Reference, section 27, test 4: 1 where sets only grow, 0.5 for {a} then {b}."""
        grows = torch.tensor([[[[1, 0]]], [[[1, 1]]]]).bool()
        exchanged = torch.tensor([[[[1, 0]]], [[[0, 1]]]]).bool()
        never = torch.zeros(2, 1, 1, 2, dtype=torch.bool)
        found = stability(torch.cat([grows, exchanged, never], 1))
        assert found[:2].tolist() == [1.0, 0.5]
        assert bool(found[2].isnan())


def test_changes():
    concepts = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0]]).bool()[:, None, None]
    found = changes(concepts)
    assert found.learned.flatten().tolist() == [1, 1, 0]
    assert found.kept.flatten().tolist() == [0, 1, 1]
    assert found.forgotten.flatten().tolist() == [0, 0, 1]


def test_effective():
    foreground = torch.tensor([[[True, False]], [[True, False]]])
    entropy = torch.tensor([[[[-3.0, -2.0]], [[-3.0, -2.0]]], [[[-3.0, -2.0]], [[-1.0, -2.0]]]])
    assert effective(entropy, foreground, ~foreground).tolist() == [True, False]
    assert effective(entropy[:1], foreground, ~foreground).tolist() == [True, True]
