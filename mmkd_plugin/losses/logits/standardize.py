"""Logit standardisation: z-scores of logits, an option of KD and DKD (Sun et al.)."""

from torch import Tensor

from ..base import full_precision

_EPS = 1e-7


@full_precision
def standardize_logits(logits: Tensor) -> Tensor:
    r"""Each sample's logits less their mean, over their standard deviation.

    S. Sun, W. Ren, J. Li, R. Wang, X. Cao, "Logit Standardization in Knowledge Distillation", CVPR
    2024, arXiv 2403.01427: ``(z - mean z) / (std z + 1e-7)``, the standard deviation with divisor C - 1.
    A softmax of the result at T is one of the logits at the sample's own temperature ``T std z``.

    What a network says by the scale of its logits is lost: a term on standardised logits teaches an order
    and proportions of the classes, and only the task loss can set the confidence. No z-score is above
    ``(C - 1) / sqrt(C)``, so that even a teacher that is certain becomes, at T = 2, one that gives its
    class at most 0.35 of 10 classes, 0.33 of 20, 0.60 of 100: lower T where classes are few.

    Args:
        logits: (N, C), C >= 3.

    Returns:
        (N, C), dimensionless. Equal logits become 0, without gradient: the slope would be 1e7.

    Raises:
        ValueError: If there are fewer than three classes.

    Example:
        >>> import torch
        >>> standardize_logits(torch.tensor([[3.0, 1.0, -1.0]])).round(decimals=4).tolist()
        [[1.0, 0.0, -1.0]]
    """
    if logits.size(1) < 3:
        raise ValueError(
            f'logits {tuple(logits.shape)} given, expected at least three classes to standardise: the z-scores of two '
            'are 0.71 and -0.71 whatever the network says, so that all confidence is lost. Use standardize=False'
        )
    logits = logits - logits.detach().amax(1, keepdim=True)  # equal ones are 0 then, not what rounding leaves of them
    centred = logits - logits.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    deviation = length / (logits.size(1) - 1) ** 0.5
    return centred * (length > 0) / (deviation + _EPS)
