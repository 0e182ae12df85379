"""CWD: channel-wise distillation (Shu et al.)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...options import check_bool
from ..base import DistillLoss, check_temperature, full_precision
from .align import channel_connector, check_same_channels, resize_like


@full_precision
def cwd_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0, normalize: bool = False) -> Tensor:
    r"""KL divergence of every channel's distribution over positions, from the teacher's to the student's.

    C. Shu, Y. Liu, J. Gao, Z. Yan, C. Shen, "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021,
    arXiv 2011.13256, equations 2 to 4. With ``phi(F) = softmax(F / T)`` over the H*W positions of a channel

    ``T**2 / (N C) * sum_nc KL(phi(F_t) || phi(F_s))``

    A constant added to a channel changes nothing. Deviation: of maps of other sizes the student's is resized; the
    authors' and mmrazor's code refuse them.

    Args:
        student: (N, C, H_s, W_s).
        teacher: (N, C, H_t, W_t), taken as constant; the student's map is resized to its size, bilinear.
        temperature: Softening T > 0 (dimensionless).
        normalize: Standardise each channel of both over batch and positions first, as a batch norm does that has no
            parameters (biased variance, epsilon 1e-5): mmyolo's recipe for RTMDet.

    Returns:
        Scalar, in nats times T squared, mean over images and channels; 0 for an empty batch.

    Raises:
        ValueError: If the shapes differ in more than height and width, or the temperature is not a number > 0.

    Example:
        >>> import torch
        >>> t = torch.tensor([[[[2.0, 1.0]]]]).log()
        >>> [round(cwd_loss(torch.zeros(1, 1, 1, 2), t, T).item(), 6) for T in (1.0, 4.0)]
        [0.056633, 0.059832]
    """
    check_same_channels(student, teacher)
    temperature = check_temperature(temperature)
    student, teacher = resize_like(student, teacher), teacher.detach()
    if normalize:
        student, teacher = _standardized(student), _standardized(teacher)
    log_s, log_t = (F.log_softmax(maps.flatten(2) / temperature, dim=2) for maps in (student, teacher))
    divergence = F.kl_div(log_s, log_t, reduction='sum', log_target=True)
    return divergence * (temperature**2 / max(student.size(0) * student.size(1), 1))


def _standardized(maps: Tensor) -> Tensor:
    """Each channel to mean 0 and variance 1; a single value, which has no variance, to 0."""
    if maps.numel() <= maps.size(1):
        return maps * 0
    return F.batch_norm(maps, None, None, training=True, eps=1e-5)


class CWDLoss(DistillLoss):
    """CWD, see :func:`cwd_loss`; a 1x1 convolution brings the student to the teacher's channels where they differ.

    It has no bias, which would change nothing.

    Published: Faster R-CNN, RetinaNet and GFL ``temperature=1, loss_weight=10`` on each neck output (mmrazor); RTMDet
    ``normalize=True, loss_weight=1`` on the neck's last convolutions (mmyolo); PSPNet, on score maps,
    ``temperature=4, loss_weight=3`` (authors) or ``temperature=1, loss_weight=5`` (mmrazor). A channel of a wide range
    is a distribution on a single position: normalise, or take a higher temperature.

    Args:
        temperature: Softening T > 0 (dimensionless).
        normalize: Standardise each channel of both sides first; the statistics are those of a process's own batch.
        loss_weight: Factor on the value.

    Raises:
        ValueError: If the temperature is not positive, ``normalize`` is no boolean or the weight is negative.
    """

    def __init__(self, temperature: float = 1.0, normalize: bool = False, loss_weight: float = 10.0) -> None:
        super().__init__(loss_weight)
        self.temperature = check_temperature(temperature)
        self.normalize = check_bool(normalize, 'normalize')
        self.connector: nn.Module = nn.Identity()

    def build_connectors(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        """Make the convolution, if it is needed.

        Raises:
            ValueError: If these are not two maps.
        """
        self.connector = channel_connector(student, teacher, bias=False)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weighted :func:`cwd_loss` of the connected student and the teacher."""
        return self.loss_weight * cwd_loss(self.connector(student), teacher, self.temperature, self.normalize)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``."""
        return f'temperature={self.temperature:g}, normalize={self.normalize}, {super().extra_repr()}'
