"""Noise that a feature allows: against a naive form, hand values, and what has to leave it as it is."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from mmkd_plugin.analysis.discarding import Setting, discard, entropy
from tests.analysis.naive_discarding import naive_discard

SMALL = Setting(cells=3, noise=4, steps=9, late=6, lr=1e-3)


def network(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2))
    return net.to(dtype).eval().requires_grad_(False)


def images(n=3, size=(7, 8), dtype=torch.float64):
    return torch.randn(n, 2, *size, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(dtype)


class TestEntropy:
    def test_hand_values(self):
        """Reference, section 27, test 1, and the uniform map at -2.8."""
        assert float(entropy(0.01)) == pytest.approx(-3.1862316, abs=1e-6)
        assert float(entropy(1.0)) == pytest.approx(1.4189385, abs=1e-6)
        assert float(entropy(0.0147143)) == pytest.approx(-2.8, abs=1e-5)
        torch.testing.assert_close(entropy(torch.tensor([1.0, math.e])).diff(), torch.ones(1))


class TestValues:
    @pytest.mark.parametrize(
        'setting', [SMALL, dataclasses.replace(SMALL, relu=False, seed=5), dataclasses.replace(SMALL, target=-3.1)]
    )
    def test_as_the_naive_form(self, setting):
        net, x = network(), images()
        found = discard(net, x, setting, keys=[7, 0, 3])
        for i, key in enumerate((7, 0, 3)):
            sigma, scale, step = naive_discard(net, x[i], setting, key)
            torch.testing.assert_close(found.sigma[i], sigma, rtol=1e-9, atol=0)
            assert float(found.scale[i]) == pytest.approx(float(scale), rel=1e-9)
            assert int(found.step[i]) == step

    def test_the_step_nearest_to_the_target_counts_and_late_ones_are_pushed(self):
        """An image that has passed the target by `late` is finished, another one gets on with a larger weight."""
        far = dataclasses.replace(SMALL, target=-1.0)
        near = dataclasses.replace(SMALL, target=-3.18)
        assert discard(network(), images(), far).step.tolist() == [9] * 3
        assert bool((discard(network(), images(), near).step <= 6).all())
        slow = discard(network(), images(), dataclasses.replace(far, boost=1.0))
        assert bool((discard(network(), images(), far).sigma.mean((1, 2)) > slow.sigma.mean((1, 2))).all())

    @pytest.mark.parametrize(
        'setting',
        [
            Setting(cells=2, noise=16, steps=150, optimizer='adam', lr=0.05, target=1.4, late=150),
            Setting(cells=2, noise=16, steps=90, lr=1e-3, high=0.05, target=-1.6),
        ],
    )
    def test_a_cell_that_a_linear_map_ignores_runs_to_the_clamp(self, setting):
        """Reference, test 2."""
        weight = torch.ones(1, 4, 4)
        weight[:, :2, :2] = 0

        def feature(x):
            return (x * weight).flatten(1) @ torch.randn(16, 5, generator=torch.Generator().manual_seed(0))

        found = discard(feature, torch.zeros(1, 1, 4, 4), dataclasses.replace(setting, relu=False))
        assert float(found.sigma[0, 0, 0]) == pytest.approx(setting.high)
        used = found.sigma[0].flatten()[1:]
        assert bool((used < 0.03).all())
        assert bool(found.usable.all())


class TestStaysTheSame:
    def test_under_positive_scaling_of_the_feature(self):
        net, x = network(dtype=torch.float32), images(dtype=torch.float32)
        found = discard(net, x, SMALL)
        torch.testing.assert_close(discard(lambda y: 4 * net(y), x, SMALL).sigma, found.sigma, rtol=0, atol=0)
        torch.testing.assert_close(discard(lambda y: 0.3 * net(y), x, SMALL).sigma, found.sigma, rtol=1e-4, atol=0)
        torch.testing.assert_close(discard(lambda y: 4 * net(y), x, SMALL).scale, 16 * found.scale)

    def test_with_the_same_seed_and_only_then(self):
        net, x = network(), images()
        state = torch.get_rng_state()
        first = discard(net, x, SMALL)
        torch.manual_seed(99)
        assert torch.equal(discard(net, x, SMALL).sigma, first.sigma)
        torch.set_rng_state(state)
        discard(net, x, SMALL)
        assert torch.equal(torch.get_rng_state(), state)
        other = discard(net, x, dataclasses.replace(SMALL, seed=1))
        assert not torch.allclose(other.sigma, first.sigma)

    @pytest.mark.parametrize('rows', [1, 3, 8, 96])
    def test_one_at_a_time_or_together(self, rows):
        net, x = network(dtype=torch.float32), images(4, dtype=torch.float32)
        together = discard(net, x, SMALL, keys=[3, 1, 4, 2])
        for i, key in enumerate((3, 1, 4, 2)):
            alone = discard(net, x[i : i + 1], SMALL, keys=[key], rows=rows)
            torch.testing.assert_close(alone.sigma[0], together.sigma[i], rtol=1e-4, atol=0)
            assert alone.step[0] == together.step[i]


class TestCellsThatDoNotCount:
    def test_padding_gets_no_noise_and_changes_nothing(self):
        """An image with padding gives what it gives without, though the network sees the padding."""
        net, x = network(), images(1, (6, 6))
        padded = torch.zeros(1, 2, 6, 9, dtype=x.dtype)
        valid = torch.ones(1, 3, 3, dtype=torch.bool)
        valid[:, :, 2] = False
        other = torch.rand(1, 2, 6, 3, dtype=x.dtype)
        seen: list[torch.Tensor] = []

        def feature(y):
            seen.append(y[..., 6:])
            return net(y[..., :6])

        padded[..., :6], padded[..., 6:] = x, other
        found = discard(feature, padded, SMALL, valid=valid)
        assert all(torch.equal(part, other.expand_as(part)) for part in seen)
        assert bool((found.sigma[0, :, 2] == SMALL.start).all())
        assert not bool((found.sigma[0, :, :2] == SMALL.start).any())

    def test_a_feature_that_does_not_react(self):
        found = discard(lambda x: torch.ones(len(x), 3, dtype=x.dtype), images(), SMALL)
        assert found.usable.tolist() == [False] * 3
        assert found.scale.tolist() == found.step.tolist() == [0] * 3

    def test_everything_at_the_clamp(self):
        setting = dataclasses.replace(SMALL, high=0.0101, target=-3.18, weight=50.0)
        assert discard(network(), images(), setting).usable.tolist() == [False] * 3


class TestRefusals:
    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            ({'cells': 0}, r'cells=0 given'),
            ({'noise': 1.5}, r'noise=1.5 given'),
            ({'lr': 0}, r'lr=0 given'),
            ({'start': 2.0}, r'start=2.0 given'),
            ({'target': 3.0}, r'target=3.0 given'),
            ({'relu': 'no'}, r"relu='no' given"),
            ({'optimizer': 'lion'}, r"'lion' given, expected 'sgd' or 'adam'"),
        ],
    )
    def test_settings(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Setting(**arguments)

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            ({'images': torch.zeros(2, 7, 7)}, r'expected floats \(N, C, H, W\)'),
            ({'images': torch.zeros(1, 2, 2, 7, dtype=torch.float64)}, r'3x3 cells given for images of 2x7'),
            ({'keys': [1]}, r'3 images, 1 keys'),
            ({'keys': [1, 2, -1]}, r'keys=-1 given'),
            ({'valid': torch.zeros(3, 3, 3)}, r'of which each image has some'),
            ({'rows': 0}, r'rows=0 given'),
            ({'feature': lambda x: x.mean(0)}, r'expected a row for each image'),
            ({'feature': lambda x: x.log()}, r'features of the images \[0, 1, 2\] are not finite'),
        ],
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            discard(**{'feature': network(), 'images': images(), 'setting': SMALL, **arguments})
