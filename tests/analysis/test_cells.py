"""Cells over pixels and back, where sizes divide and where they do not."""

import pytest
import torch

from mmkd_plugin.analysis.cells import Cells


@pytest.mark.parametrize(('count', 'size'), [(4, (8, 8)), (3, (7, 10)), (1, (2, 3)), (5, (5, 6))])
def test_pixel_by_pixel(count, size):
    cells = Cells(count, size)
    values = torch.randn(2, count, count, generator=torch.Generator().manual_seed(0))
    spread = cells.spread(values)
    for y in range(size[0]):
        for x in range(size[1]):
            torch.testing.assert_close(
                spread[:, y, x], values[:, y * count // size[0], x * count // size[1]], rtol=0, atol=0
            )
    torch.testing.assert_close(cells.mean(spread), values)


def test_as_torch_upsamples():
    """The paper's code upsamples 16x16 to 224x224 with the nearest neighbour."""
    values = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(values, (224, 224), mode='nearest')
    torch.testing.assert_close(Cells(16, (224, 224)).spread(values), expected, rtol=0, atol=0)


def test_refusals():
    for count, message in ((9, '9x9 cells given for images of 8x10 pixels'), (0, 'cells=0 given')):
        with pytest.raises(ValueError, match=message):
            Cells(count, (8, 10))
