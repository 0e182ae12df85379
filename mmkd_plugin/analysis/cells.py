"""Images cut into cells: values of cells spread over pixels, and pixels averaged into cells."""

import torch
from torch import Tensor

from ..options import check_whole


class Cells:
    """A grid of equal cells over images of one size; where sizes do not divide, cells differ by a pixel.

    Args:
        count: In each direction.
        size: Height and width of the images.
        like: Device and dtype of what it is used on.

    Raises:
        ValueError: If there are more cells than pixels.
    """

    def __init__(self, count: int, size: tuple[int, int], like: Tensor | None = None) -> None:
        check_whole(count, 'cells', low=1)
        if count > min(size):
            raise ValueError(f'{count}x{count} cells given for images of {size[0]}x{size[1]} pixels, expected fewer')
        self.count = count
        like = torch.zeros(()) if like is None else like
        # which cell each row, and each column, of pixels lies in: one-hot, so that products copy values exactly
        self._rows, self._columns = (
            torch.nn.functional.one_hot(torch.arange(n, device=like.device) * count // n, count).to(like) for n in size
        )

    def spread(self, values: Tensor) -> Tensor:
        """Of cells (..., h, w) over pixels (..., H, W), each pixel with its cell's."""
        return self._rows @ values @ self._columns.mT

    def mean(self, pixels: Tensor) -> Tensor:
        """Of pixels (..., H, W) in each cell (..., h, w)."""
        sums = self._rows.mT @ pixels.to(self._rows) @ self._columns
        return sums / (self._rows.sum(0)[:, None] * self._columns.sum(0))
