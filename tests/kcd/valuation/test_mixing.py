from fractions import Fraction
from math import nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkd_plugin.kcd.valuation import mix

BYTE = st.integers(0, 255)
# as condense() gives them; Fraction takes them at their exact value
EPSILON = st.one_of(st.just(0.0), st.floats(2**-16, 1, width=32))


def naive(x: int, x_0: int, epsilon: float, mode: str) -> int:
    """Exact, then cut off after the point and at 255."""
    e = Fraction(epsilon)
    return min(int((1 - e) * x + e * x_0 if mode == 'convex' else x + e * x_0), 255)


def image(*values: float, dtype: type = np.uint8) -> np.ndarray:
    return np.array([values], dtype)


def test_by_hand():
    # 0.75 * 10 + 0.25 * 21 = 12.75 and 10 + 0.25 * 21 = 15.25
    assert mix(image(10), image(21), 0.25, 'convex').tolist() == [[12]]
    assert mix(image(10), image(21), 0.25, 'additive').tolist() == [[15]]
    assert mix(image(10, dtype=float), image(21, dtype=float), 0.25).tolist() == [[12.75]]
    # no way round from 255 to 0
    assert mix(image(200), image(255), 0.5, 'additive').tolist() == [[255]]
    assert mix(image(200, dtype=float), image(255, dtype=float), 0.5, 'additive').tolist() == [[327.5]]


@pytest.mark.parametrize('mode', ['convex', 'additive'])
@settings(deadline=None)
@given(st.lists(st.tuples(BYTE, BYTE), min_size=1, max_size=6), EPSILON)
def test_bytes_are_those_of_exact_numbers(mode, pairs, epsilon):
    mixed = mix(image(*(x for x, _ in pairs)), image(*(x_0 for _, x_0 in pairs)), np.float32(epsilon), mode)
    assert mixed.dtype == np.uint8
    assert mixed.tolist() == [[naive(x, x_0, epsilon, mode) for x, x_0 in pairs]]


@settings(deadline=None)
@given(st.floats(0, 1))
def test_an_image_with_itself_is_itself(epsilon):
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(mix(every, every, epsilon), every)


@pytest.mark.parametrize('dtype', [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize('shape', [(2, 3), (2, 3, 1), (2, 3, 3)])
@pytest.mark.parametrize('mode', ['convex', 'additive'])
def test_shape_and_type_stay_and_the_images_too(mode, shape, dtype):
    x, x_0 = (np.random.default_rng(seed).integers(0, 256, shape).astype(dtype) for seed in range(2))
    before = x.copy(), x_0.copy()
    mixed = mix(x, x_0, 0.3, mode)
    assert (mixed.shape, mixed.dtype) == (shape, dtype)
    np.testing.assert_array_equal((x, x_0), before)
    np.testing.assert_array_equal(mix(x, x_0, 0.0, mode), x)
    assert not np.shares_memory(mix(x, x_0, 0.0, mode), x)
    if mode == 'convex':
        np.testing.assert_array_equal(mix(x, x_0, 1.0), x_0)


@pytest.mark.parametrize(
    ('x', 'x_0'),
    [
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros((2, 3)), np.zeros((2, 3, 1))),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((2, 3)), np.zeros((2, 3), np.float32)),
    ],
)
def test_images_that_do_not_fit(x, x_0):
    with pytest.raises(ValueError, match='expected two of the same shape'):
        mix(x, x_0, 0.3)


@pytest.mark.parametrize('x', [np.zeros((2, 2), int), np.zeros((2, 2), bool), [[0.0]]])
def test_other_types(x):
    with pytest.raises(TypeError, match=r'type (int64|bool|list) given, expected a numpy array of uint8 or floats'):
        mix(x, x, 0.3)


@pytest.mark.parametrize('epsilon', [-0.1, 1.1, nan])
def test_bad_epsilon(epsilon):
    with pytest.raises(ValueError, match='expected a number from 0 to 1'):
        mix(image(0), image(0), epsilon)


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"'cutmix' given, expected one of \('convex', 'additive'\)"):
        mix(image(0), image(0), 0.3, 'cutmix')
