"""Distances between the samples of a batch, as relations that see neither place nor scale use them."""

import torch
from torch import Tensor


def squared_distances(vectors: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs, from one matrix product, in a unit of the batch's own.

    The vectors are moved to their mean and divided by their largest coordinate, so that float32 holds what is left of
    the product's terms. Both are taken as constants, which changes no gradient of what does not depend on place and
    scale. Two vectors whose distance is within the product's rounding count as equal: 0, without gradient.

    Args:
        vectors: (N, D), neither N nor D being 0.

    Returns:
        (N, N), >= 0, with zeros in the diagonal.
    """
    centred = vectors - vectors[:1].detach()  # equal vectors become exactly 0
    centred = centred - centred.detach().mean(0)
    scale = centred.detach().abs().amax()
    centred = centred / torch.where(scale > 0, scale, 1)
    gram = centred @ centred.T
    lengths = gram.diagonal()
    sums = lengths[:, None] + lengths
    squared = sums - 2 * gram
    return torch.where(squared <= 16 * torch.finfo(gram.dtype).eps * sums, 0, squared)
