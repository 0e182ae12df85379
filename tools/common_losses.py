"""What `benchmark_losses.py` measures: each loss, the sizes that recipes give it, and the form that other codes use.

A loss of `mmkd_plugin.losses` has an entry in :data:`ENTRIES`, by its name; further ones, 'Name: what is special', are
for arguments with which it computes in another way. The common form gets what the loss's ``forward`` gets, after the
loss itself (for its connectors and arguments), and is written as it is usually found, broadcasts included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """Shapes of the taps.

    Attributes:
        student: One, or several for a loss that relates layers.
        teacher: The same; the student's where it is left out.
        in_step: Whether a step of the ResNet34→18 recipe, batch 32, has it. (With several, it has them all.)
        too_large: Whether common forms that broadcast take more memory here than most computers have.
    """

    student: tuple[Shape, ...]
    teacher: tuple[Shape, ...] = ()
    in_step: bool = False
    too_large: bool = False

    def __str__(self) -> str:
        shapes = ['x'.join(map(str, shape)) for shape in self.student]
        return shapes[0] if len(shapes) == 1 else f'{shapes[0]} to {shapes[-1]}'


CIFAR_MAPS = tuple(Size((shape,)) for shape in ((64, 64, 32, 32), (64, 128, 16, 16), (64, 256, 8, 8)))
IMAGENET_MAPS = tuple(
    Size((shape,), in_step=True, too_large=True)
    for shape in ((32, 64, 56, 56), (32, 128, 28, 28), (32, 256, 14, 14), (32, 512, 7, 7))
)
MAPS = (*CIFAR_MAPS, *IMAGENET_MAPS)
#: The same maps as the list that a loss over layers gets.
STAGES = (
    Size(tuple(size.student[0] for size in CIFAR_MAPS)),
    Size(tuple(size.student[0] for size in IMAGENET_MAPS), in_step=True, too_large=True),
)
#: And with the pooled vector.
STAGES_AND_VECTOR = (
    Size((*STAGES[0].student, (64, 256))),
    Size((*STAGES[1].student, (32, 512)), in_step=True, too_large=True),
)
#: CIFAR-100, ImageNet at the batch of a GPU and of the step, the RoIs of two images on COCO.
LOGITS = (Size(((64, 100),)), Size(((256, 1000),)), Size(((32, 1000),), in_step=True), Size(((1024, 81),)))
VECTORS = (Size(((64, 256),)), Size(((256, 512),)), Size(((32, 512),), in_step=True), Size(((1024, 1024),)))


@dataclass(frozen=True)
class Entry:
    """How a loss is measured.

    Attributes:
        sizes: Of its taps.
        common: The usual form; None where it would be the same operations.
        arguments: Of the loss, besides ``loss_weight``, which is 1.
        broadcasts: Whether the common form is left out where that takes too much memory.
        same: Whether both have the same value, which is checked then.
    """

    sizes: Sequence[Size]
    common: Callable[..., Tensor] | None
    arguments: dict[str, Any] = field(default_factory=dict)
    broadcasts: bool = False
    same: bool = True


#: What a loss may need besides taps, for taps of one shape.
NEEDS: dict[str, Callable[[Shape], Any]] = {
    'labels': lambda shape: torch.arange(shape[0]) % min(shape[1], 10),
    'sample_idx': lambda shape: torch.arange(shape[0]),
    'epoch': lambda shape: 1,
}


def kd(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Soft targets."""
    t = loss.temperature
    if loss.standardize:
        student, teacher = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (student, teacher))
    divergence = F.kl_div((student / t).log_softmax(1), (teacher / t).softmax(1), reduction='none')
    return divergence.sum(1).mean() * t**2


def dkd(loss: Any, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Masks, and 1000 off the target's logit."""
    t, rows = loss.temperature, len(labels)
    is_target = torch.zeros_like(student).scatter_(1, labels[:, None], 1).bool()
    is_other = torch.ones_like(student).scatter_(1, labels[:, None], 0).bool()

    def target_and_others(probabilities: Tensor) -> Tensor:
        parts = [(probabilities * mask).sum(1, keepdim=True) for mask in (is_target, is_other)]
        return torch.cat(parts, 1)

    two_s, two_t = (target_and_others((z / t).softmax(1)) for z in (student, teacher))
    tckd = F.kl_div(two_s.log(), two_t, reduction='sum') * t**2 / rows
    rest_t = (teacher / t - 1000.0 * is_target).softmax(1)
    rest_s = (student / t - 1000.0 * is_target).log_softmax(1)
    nckd = F.kl_div(rest_s, rest_t, reduction='sum') * t**2 / rows
    return loss.alpha * tckd + loss.beta * nckd


def dist(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """A correlation of rows, and of the transposed."""
    t = loss.temperature

    def distance(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return 1 - ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)).mean()

    y_s, y_t = (student / t).softmax(1), (teacher / t).softmax(1)
    inter, intra = t**2 * distance(y_s, y_t), t**2 * distance(y_s.T, y_t.T)
    return loss.beta * inter + loss.gamma * intra


def fitnet(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """The regressor is ours."""
    return F.mse_loss(loss.regressor(student), teacher)


def attention(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of squares over channels, to length 1."""
    q_s, q_t = (F.normalize(maps.pow(2).mean(1).flatten(1)) for maps in (student, teacher))
    return (q_s - q_t).pow(2).mean()


def nst(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """The polynomial kernel, with every product of two channels in memory."""
    y, x = (F.normalize(maps.flatten(2), dim=2) for maps in (student, teacher))

    def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a[:, :, None] * b[:, None]).sum(3).pow(2).mean((1, 2))

    return (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)).mean()


def hcl(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Both maps are pooled anew for each level."""
    value, total, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for level in (4, 2, 1):
        if level >= student.size(2):
            continue
        pooled = [F.adaptive_avg_pool2d(maps, (level, level)) for maps in (student, teacher)]
        weight /= 2
        value = value + F.mse_loss(pooled[0], pooled[1]) * weight
        total += weight
    return value / total


def reviewkd(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """The fusions are ours."""
    value, residual = torch.zeros(()), None
    for fusion, s, t in reversed(list(zip(loss.fusions, student, teacher, strict=True))):
        s, t = (x[:, :, None, None] if x.ndim == 2 else x for x in (s, t))
        fused, residual = fusion(s, residual, t.shape[2:])
        value = value + hcl(loss, fused, t)
    return value


#: By the name of the loss or function.
ENTRIES = {
    # logits
    'KDLoss': Entry(LOGITS, kd),
    'KDLoss: standardised': Entry(LOGITS, kd, {'temperature': 2.0, 'standardize': True}),
    'DKDLoss': Entry(LOGITS, dkd),
    'DISTLoss': Entry(LOGITS, dist),
    # maps: hints, attention, selectivity
    'FitNetLoss': Entry(MAPS, fitnet),
    'ATLoss': Entry(MAPS, attention),
    'NSTLoss': Entry(MAPS, nst, broadcasts=True),
    'ReviewKDLoss': Entry(STAGES_AND_VECTOR, reviewkd),
    'hcl_loss': Entry(MAPS, hcl),
    # maps: margins, information, attention over layers

    # relations between samples

    # relations between layers

}  # fmt: skip
