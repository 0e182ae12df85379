import random

import numpy as np
import torch

from mmkd_plugin.randomness import keep_random_state, seed_everything


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_states_are_as_before():
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    with keep_random_state():
        draw()
        seed_everything(99)
    assert draw() == expected


def test_states_are_as_before_after_an_error():
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    try:
        with keep_random_state():
            draw()
            raise KeyError
    except KeyError:
        pass
    assert draw() == expected
