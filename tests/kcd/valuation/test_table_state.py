import io
from math import nan
from typing import Any

import numpy as np
import pytest
import torch

from mmkd_plugin.kcd.valuation import ValueTable


def trained() -> ValueTable:
    table = ValueTable(4)
    table.update([0, 2], [0.1, 0.7])
    table.update([2], [0.3])
    return table


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_state_survives_a_file():
    table = trained()
    kept = table.state_dict()
    state = saved_and_loaded(kept)
    other = ValueTable(4)
    other.load_state_dict(state)
    for one in (table, other):
        one.update([0, 1], [0.2, 0.3])
    np.testing.assert_array_equal(other.mean, table.mean)
    np.testing.assert_array_equal(other.count, table.count)
    assert [other.mean.dtype, other.count.dtype] == ['float32', 'int32']
    for unchanged in (kept, state):  # they share no memory with a table
        assert unchanged['count'].tolist() == [1, 0, 2, 0]
        assert unchanged['mean'].tolist() == np.array([0.1, 0, 0.5, 0], np.float32).tolist()


def test_a_state_of_another_data_set():
    with pytest.raises(ValueError, match='values of 4 samples given, expected 5: the data set changed'):
        ValueTable(5).load_state_dict(ValueTable(4).state_dict())


def test_a_state_of_something_else():
    with pytest.raises(ValueError, match=r"\['mean'\] given, expected size, mean and count"):
        ValueTable(1).load_state_dict({'mean': torch.zeros(1)})


@pytest.mark.parametrize(
    'damage',
    [
        {'mean': torch.tensor([0.0, nan])},
        {'mean': torch.zeros(3)},
        {'count': torch.zeros(1)},
        {'count': torch.tensor([0, -1])},
    ],
)
def test_a_damaged_state(damage):
    table = ValueTable(2)
    table.update([0], [1.0])
    with pytest.raises(ValueError, match='damaged'):
        table.load_state_dict({**table.state_dict(), **damage})
    assert table.mean.tolist() == [1.0, 0.0]
