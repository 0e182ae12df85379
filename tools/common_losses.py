"""What `benchmark_losses.py` measures: each loss, the sizes that recipes give it, and the form that other codes use.

A loss of `mmkd_plugin.losses` has an entry in :data:`ENTRIES`, by its name; further ones, 'Name: what is special', are
for arguments with which it computes in another way. The common form gets what the loss's ``forward`` gets, after the
loss itself (for its connectors and arguments), and is written as it is usually found, broadcasts included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, exp, factorial, floor
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkd_plugin.facts import TapShape
from mmkd_plugin.losses import MHGDHeadsLoss, ParaphraserLoss
from mmkd_plugin.networks import Tap

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """Shapes of the taps.

    Attributes:
        student: One, or several for a loss that relates layers.
        teacher: The same, or one for each of several teachers; the student's where it is left out.
        in_step: Whether a step of the ResNet34→18 recipe, batch 32, has it. (With several, it has them all.)
        too_large: Whether common forms that broadcast take more memory here than most computers have.
        related: Whether the widths of the taps belong together, so that a tiny one has fewer rows only.
    """

    student: tuple[Shape, ...]
    teacher: tuple[Shape, ...] = ()
    in_step: bool = False
    too_large: bool = False
    related: bool = False

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
#: And with the first block of each stage before its last.
BLOCKS = tuple(Size(tuple(shape for shape in size.student for _ in range(2)), in_step=size.in_step) for size in STAGES)
#: What is usual for a loss on one map.
LAST_MAPS = (CIFAR_MAPS[-1], IMAGENET_MAPS[-1])
#: CIFAR-100, ImageNet at the batch of a GPU and of the step, the RoIs of two images on COCO.
LOGITS = (Size(((64, 100),)), Size(((256, 1000),)), Size(((32, 1000),), in_step=True), Size(((1024, 81),)))
VECTORS = (
    Size(((64, 256),)),
    Size(((256, 512),)),
    Size(((32, 512),), in_step=True),
    Size(((1024, 1024),), too_large=True),
)
#: At which fetching 16,384 negatives of each sample takes a GiB.
BANKED_VECTORS = (Size(((64, 256),)), Size(((32, 512),), in_step=True))
#: Levels of an FPN: P3 and P5 of two images of 640x640, P5 of eight.
NECKS = tuple(Size((shape,)) for shape in ((2, 256, 80, 80), (2, 256, 20, 20), (8, 256, 20, 20)))
#: P3 to P7 of a head on images of 640x640: scores of 80 classes, and distributions of 17 bins.
LEVELS = (80, 40, 20, 10, 5)
HEADS = tuple(Size(tuple((n, 80, side, side) for side in LEVELS)) for n in (2, 8))
GFL_HEADS = tuple(
    Size((*size.student, *((n, 68, side, side) for side in LEVELS))) for n, size in zip((2, 8), HEADS, strict=True)
)
BOX_HEADS = tuple(
    Size((*size.student, *((n, 4, side, side) for side in LEVELS))) for n, size in zip((2, 8), HEADS, strict=True)
)
#: Of a network for half as many classes.
OLDER_LOGITS = tuple(
    Size(size.student, ((size.student[0][0], size.student[0][1] // 2),), size.in_step) for size in LOGITS[:3]
)
#: Scores and boxes of the RoIs of two images on COCO, of detectors for 80 and for 40 classes.
OLDER_BRANCHES = (Size(((1024, 81), (1024, 320)), ((1024, 41), (1024, 160)), related=True),)
#: With three teachers.
TEACHERS_LOGITS = tuple(Size(size.student, 3 * size.student, size.in_step) for size in LOGITS)
#: With three teachers.
TEACHERS_VECTORS = tuple(Size(size.student, 3 * size.student, size.in_step) for size in VECTORS)


def connect(loss: Any, *sides: Any) -> None:
    """Make the connectors from the shapes of the taps."""

    def shapes(side: Any) -> Any:
        if isinstance(side, dict):
            return {name: tap.shape for name, tap in side.items()}
        return [tap.shape for tap in side] if isinstance(side, list) else side.shape

    loss.build_connectors(*map(shapes, sides))


def connect_behind_norms(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    """And from the batch norms that the teacher's taps come from."""
    shapes = [TapShape.of(t, Tap.parse('0'), nn.Sequential(nn.BatchNorm2d(t.size(1)))) for t in teacher]
    loss.build_connectors([s.shape for s in student], shapes)


def connect_to_paraphraser(loss: Any, student: Tensor, teacher: Tensor) -> None:
    """And from the paraphraser that the loss uses."""
    paraphraser = ParaphraserLoss()
    connect(paraphraser, teacher)
    loss.take('paraphraser', paraphraser.to(teacher.device))
    connect(loss, student, teacher)


def connect_to_heads(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    """And from the heads that the loss uses."""
    heads = MHGDHeadsLoss()
    connect(heads, teacher)
    loss.take('heads', heads.to(teacher[0].device))
    connect(loss, student, teacher)


def connect_to_banks(loss: Any, student: Tensor, teacher: Tensor) -> None:
    """And from banks of 50,000 samples of 100 classes, behind the step that scales the scores."""
    connect(loss, student, teacher)
    loss.to(student.device)
    loss.prepare(SimpleNamespace(data=SimpleNamespace(labels=lambda: torch.arange(50_000) % 100)))
    with torch.no_grad():
        loss(student, teacher, torch.arange(len(student), device=student.device))
    loss.eval()


def connect_to_anchors(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    """And from squares of eight strides around each place, as GFL has."""

    def anchors(sizes: Sequence[tuple[int, int]], like: Tensor) -> list[Tensor]:
        found = []
        for number, (height, width) in enumerate(sizes):
            y, x = torch.meshgrid(*(torch.arange(n, device=like.device) for n in (height, width)), indexing='ij')
            center = torch.stack([x, y], 2).view(-1, 2).to(like.dtype)
            found.append(8 * 2**number * torch.cat([center - 4, center + 4], 1))
        return found

    loss.grid = SimpleNamespace(classes=80, anchors=anchors)


def connect_to_points(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    """And with points at each place, whose distances to a box's sides are the numbers, as FCOS has."""

    def places(sizes: Sequence[tuple[int, int]], like: Tensor) -> list[Tensor]:
        return [like.new_ones(height * width, 2) for height, width in sizes]

    def decode(numbers: Tensor, where: Tensor, strides: Tensor) -> Tensor:
        distances = numbers.abs()
        return torch.cat([where - distances[:, :2], where + distances[:, 2:]], 1)

    strides = ((8.0, 8.0),) * (len(student) // 2)
    loss.grid = SimpleNamespace(classes=80, bins=0, strides=strides, places=places, decode=decode)


@dataclass(frozen=True)
class Entry:
    """How a loss is measured.

    Attributes:
        sizes: Of its taps.
        common: The usual form; None where it would be the same operations.
        arguments: Of the loss, besides ``loss_weight``, which is 1.
        broadcasts: Whether the common form is left out where that takes too much memory.
        same: Whether both have the same value, which is checked then.
        signed: Whether taps have any sign, as logits and maps before a ReLU.
        connect: Makes the connectors, of the loss and its taps.
        takes: What takes the time of a loss that may be a noticeable share of a step.
    """

    sizes: Sequence[Size]
    common: Callable[..., Tensor] | None
    arguments: dict[str, Any] = field(default_factory=dict)
    broadcasts: bool = False
    same: bool = True
    signed: bool = False
    connect: Callable[..., None] = connect
    takes: str = ''


def hundred_boxes(images: int) -> Tensor:
    """(N, 100, 4), anywhere in 640x640, most of them small."""
    generator = torch.Generator().manual_seed(0)
    centers, sides = torch.rand(2, images, 100, 2, generator=generator)
    sides = 320 * sides**3
    return torch.cat([640 * centers - sides, 640 * centers + sides], 2).clamp(0, 640)


def assigned(shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
    """A class for one in 200 places of each level whose scores are among the taps."""
    levels = [shape for shape in shapes if shape[1] == shapes[0][1]]
    return tuple(torch.where(torch.arange(n * h * w) % 200 == 0, 1, c) for n, c, h, w in levels)


#: What a loss may need besides taps, for a student's taps of some shapes.
NEEDS: dict[str, Callable[[Sequence[Shape]], Any]] = {
    'labels': lambda shapes: torch.arange(shapes[0][0]) % min(shapes[0][1], 10),
    'sample_idx': lambda shapes: torch.arange(shapes[0][0]),
    'epoch': lambda shapes: 1,
    'assignments': assigned,
    'padded_boxes': lambda shapes: hundred_boxes(shapes[0][0]),
    'input_size': lambda shapes: (640, 640),
    'image_sizes': lambda shapes: torch.full((shapes[0][0], 2), 640),
}


def kd(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Soft targets."""
    t = loss.temperature
    if loss.standardize:
        student, teacher = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (student, teacher))
    divergence = F.kl_div((student / t).log_softmax(1), (teacher / t).softmax(1), reduction='none')
    return divergence.sum(1).mean() * t**2


def ensemble_kd(loss: Any, student: Tensor, teachers: dict[str, Tensor]) -> Tensor:
    """The mean of the soft targets."""
    t = loss.temperature
    target = torch.stack([(teacher / t).softmax(1) for teacher in teachers.values()]).mean(0)
    return F.kl_div((student / t).log_softmax(1), target, reduction='batchmean') * t**2


def lwf(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Probabilities to the power of 1/T, renormalised."""

    def softened(logits: Tensor) -> Tensor:
        powers = logits.softmax(1) ** (1 / loss.temperature)
        return powers / powers.sum(1, keepdim=True)

    return -(softened(teacher) * softened(student[:, : teacher.size(1)]).log()).sum(1).mean()


def ilod(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """All RoIs sorted, every class with a box of its own."""
    old = teacher[0].size(1) - 1
    taken = teacher[0].softmax(1)[:, -1].argsort()[: int(len(teacher[0]) * loss.share)]
    logits = [torch.cat([scores[:, :old], scores[:, -1:]], 1)[taken] for scores in (student[0], teacher[0])]
    logits = [scores - scores.mean(1, keepdim=True) for scores in logits]
    boxes = [side[1].view(len(side[1]), -1, 4)[:, :old][taken] for side in (student, teacher)]
    return F.mse_loss(logits[0], logits[1]) + F.mse_loss(boxes[0], boxes[1], reduction='none').sum(2).mean()


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


def ofd(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Squares of everything, and a mask of those that count. The connectors and margins are ours."""
    values = []
    for depth, (connector, s, t) in enumerate(zip(loss.connectors, student, teacher, strict=True), start=1):
        s, t = connector(s), torch.max(t, connector.margin.view(1, -1, 1, 1))
        squares = F.mse_loss(s, t, reduction='none') * ((s > t) | (t > 0)).float()
        values.append(squares.sum() / len(s) / 2 ** (len(student) - depth))
    return torch.stack(values).sum()


def vid(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """The log-likelihood of every element. The regressor is ours."""
    mean = loss.regressor(student)
    variance = ((1 + loss.alpha.exp()).log() + loss.eps).view(1, -1, 1, 1)
    return (0.5 * ((mean - teacher).pow(2) / variance + variance.log())).mean()


def semckd(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Pair by pair, for each of which maps are pooled anew. The learnable parts are ours."""

    def embedded(embed: nn.Module, maps: Tensor) -> Tensor:
        rows = maps.flatten(1)
        return F.normalize(embed(F.pad(rows @ rows.T, (0, loss.batch_size - len(rows)))))

    queries = torch.stack([embedded(*pair) for pair in zip(loss.queries, student, strict=True)], 1)
    keys = torch.stack([embedded(*pair) for pair in zip(loss.keys, teacher, strict=True)], 1)
    attention = torch.bmm(queries, keys.transpose(1, 2)).softmax(2)
    value = torch.zeros((), device=attention.device)
    for i, maps in enumerate(student):
        for j, target in enumerate(teacher):
            smaller = min(maps.size(2), target.size(2))
            s, t = (F.adaptive_avg_pool2d(x, (smaller, smaller)) for x in (maps, target))
            squares = F.mse_loss(loss.projections[i][j](s), t, reduction='none').flatten(1).mean(1)
            value = value + (attention[:, i, j] * squares).mean() / len(student)
    return value


def pkt(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Cosines, shifted and scaled to sum to 1."""
    eps = 1e-7

    def choices(x: Tensor) -> Tensor:
        x = x / (x.pow(2).sum(1, keepdim=True).sqrt() + eps)
        similarity = (x @ x.T + 1) / 2
        return similarity / similarity.sum(1, keepdim=True)

    p_s, p_t = choices(student), choices(teacher)
    return (p_t * ((p_t + eps) / (p_s + eps)).log()).mean()


def sp(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Products of the flattened maps, row by row to length 1."""
    rows = [maps.reshape(len(maps), -1) for maps in (student, teacher)]
    g_s, g_t = (F.normalize(x @ x.T) for x in rows)
    return (g_t - g_s).pow(2).sum() / len(student) ** 2


def cc(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """The Taylor series, power by power."""

    def correlation(x: Tensor) -> Tensor:
        x = F.normalize(x)
        cosines, total = x @ x.T, torch.zeros(len(x), len(x), device=x.device)
        for power in range(loss.order + 1):
            factor = exp(-2 * loss.gamma) * (2 * loss.gamma) ** power / factorial(power)
            total = total + factor * cosines.pow(power)
        return total

    return (correlation(student) - correlation(teacher)).pow(2).mean()


def cc_embedded(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """The embeddings are ours."""
    wrong = (loss.embed_student(student) - loss.embed_teacher(teacher)).abs()
    return (wrong[:-1] * wrong[1:]).sum(1).mean()


def lp(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Differences of all pairs, element by element."""
    n = len(student)
    of_s, of_t = ((x[:, None] - x[None]).pow(2).sum(2) for x in (student, teacher))
    weights = (-of_t / (of_t.sum() / (n * (n - 1)))).exp()  # sigma2='mean'
    k = min(loss.k, n - 1)
    nearest = of_t.topk(k + 1, largest=False).indices[:, 1:]  # the first is the sample itself
    return (weights.gather(1, nearest) * of_s.gather(1, nearest)).sum() / (n * k)


def rkd_distances(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """From a product, as the authors have it."""

    def relative(x: Tensor) -> Tensor:
        squares = x.pow(2).sum(1)
        distances = (squares[:, None] + squares[None] - 2 * x @ x.T).clamp(min=1e-12).sqrt()
        distances = distances * (1 - torch.eye(len(x), device=x.device))
        return distances / distances[distances > 0].mean()

    return loss.distance_weight * F.smooth_l1_loss(relative(student), relative(teacher))


def rkd_angles(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Differences of all pairs to length 1, and their products at each sample."""

    def angles(x: Tensor) -> Tensor:
        directions = F.normalize(x[None] - x[:, None], dim=2)
        return torch.bmm(directions, directions.transpose(1, 2)).view(-1)

    return loss.angle_weight * F.smooth_l1_loss(angles(student), angles(teacher))


def irg(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distances from a product, and the mean of squares."""

    def edges(x: Tensor) -> Tensor:
        squares = x.pow(2).sum(1)
        distances = (squares[:, None] + squares[None] - 2 * x @ x.T).clamp(min=1e-12)
        return distances / distances.max()

    return F.mse_loss(edges(student), edges(teacher)) * len(student) / 2


def irg_transform(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Pooled maps of the first and last block of each stage."""

    def moves(maps: Sequence[Tensor]) -> list[Tensor]:
        pooled = [F.adaptive_avg_pool2d(x, 1).flatten(1) for x in maps]
        squares = [(b - a).pow(2).sum(1) for a, b in zip(pooled[::2], pooled[1::2], strict=True)]
        return [x / x.max() for x in squares]

    return torch.stack([F.mse_loss(*pair) / 2 for pair in zip(moves(student), moves(teacher), strict=True)]).sum()


def fsp(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Products of every two channels at every position, and their mean."""
    pool = F.adaptive_max_pool2d if loss.pool == 'max' else F.adaptive_avg_pool2d

    def flow(first: Tensor, second: Tensor) -> Tensor:
        first = pool(first, (second.size(2), second.size(3))) if first.size(2) > second.size(2) else first
        first, second = first.flatten(2)[:, :, None], second.flatten(2)[:, None]
        return (first * second).mean(3)

    flows = [[flow(*pair) for pair in pairwise(maps)] for maps in (student, teacher)]
    return torch.stack([F.mse_loss(s, t) for s, t in zip(*flows, strict=True)]).sum()


def kdsvd(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Whole decompositions, and the kernel of every two channels; a teacher's vector has the sign that ours has."""

    def decomposed(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
        _, values, rows = torch.linalg.svd(maps.flatten(2).transpose(1, 2), full_matrices=False)
        return F.normalize(values[:, :count]), rows[:, :count].transpose(1, 2)

    vectors: list[tuple[Tensor, Tensor]] = []
    for s, t in zip(student, teacher, strict=True):
        values, v_t = decomposed(t, loss.vectors)
        v_t = torch.where(v_t.sum(1, keepdim=True) < 0, -v_t, v_t)
        _, v_s = decomposed(s, loss.vectors + 3)
        cosines = v_s.transpose(1, 2) @ v_t
        chosen = cosines.sign() * (cosines.abs() == cosines.abs().amax(1, keepdim=True))
        vectors.append((v_s @ chosen * values[:, None], v_t * values[:, None]))

    def kernel(front: Tensor, back: Tensor) -> Tensor:
        return (-(back[:, :, None] - front[:, None]).pow(2) / 8).exp()

    value = torch.zeros((), device=student[0].device)
    for (front_s, front_t), (back_s, back_t) in pairwise(vectors):
        value = value + (kernel(front_s, back_s) - kernel(front_t, back_t)).pow(2).sum() / len(front_s)
    return value


def paraphraser(loss: Any, teacher: Tensor) -> Tensor:
    """The autoencoder is ours."""
    return F.mse_loss(loss.decoder(loss.encoder(teacher)), teacher)


def ft(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Translator and paraphraser are ours."""
    with torch.no_grad():
        target = loss.used('paraphraser').encoder(teacher)
    u_s, u_t = (F.normalize(factor.flatten(1)) for factor in (loss.translator(student), target))
    return (u_s - u_t).abs().mean()


def ab(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Both cases everywhere, and masks. The connectors are ours."""
    values, m = [], loss.margin
    for depth, (connector, s, t) in enumerate(zip(loss.connectors, student, teacher, strict=True), start=1):
        s = connector(s)
        off = (s + m).pow(2) * ((s > -m) & (t <= 0)).float()
        on = (s - m).pow(2) * ((s <= m) & (t > 0)).float()
        values.append((off + on).sum() / len(s) * 2.0 ** (depth - len(student)))
    return torch.stack(values).sum()


def first_vectors(maps: Tensor, count: int) -> Tensor:
    """Right singular vectors, (N, C, count), of whole decompositions, with the signs that ours have."""
    _, _, rows = torch.linalg.svd(maps.flatten(2).transpose(1, 2), full_matrices=False)
    vectors = rows[:, :count].transpose(1, 2)
    return torch.where(vectors.sum(1, keepdim=True) < 0, -vectors, vectors)


def mhgd_heads(loss: Any, teacher: Sequence[Tensor]) -> Tensor:
    """Vectors from whole decompositions. The heads are ours."""
    vectors = [first_vectors(maps, 1)[..., 0] for maps in teacher]
    value = torch.zeros((), device=teacher[0].device)
    for pair, (front, back) in zip(loss.pairs, pairwise(vectors), strict=True):
        estimate = pair.estimate(front, back, front.new_ones(len(front), loss.heads))
        value = value + (1 - F.cosine_similarity(estimate, back)).mean()
    return value


def mhgd(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Vectors from whole decompositions. The heads are ours."""
    of_s, of_t = [], []
    for s, t in zip(student, teacher, strict=True):
        v_s, v_t = first_vectors(s, 4), first_vectors(t, 1)
        cosines = v_s.transpose(1, 2) @ v_t
        chosen = cosines.sign() * (cosines.abs() == cosines.abs().amax(1, keepdim=True))
        of_s.append((v_s @ chosen)[..., 0])
        of_t.append(v_t[..., 0])
    value = torch.zeros((), device=student[0].device)
    for s, t in zip(*(loss.used('heads').scores(vectors) for vectors in (of_s, of_t)), strict=True):
        log_s, log_t = s.tanh().log_softmax(2), t.tanh().log_softmax(2)
        value = value + F.kl_div(log_t, log_s, reduction='sum', log_target=True) / s.size(1)
    return value


def crd(loss: Any, student: Tensor, teacher: Tensor, sample_idx: Tensor) -> Tensor:
    """Every negative of every sample is fetched from the banks. Embeddings and drawing are ours."""
    drawn = loss.draw(sample_idx)
    noise = loss.num_negatives / len(loss.student_bank)
    sides = (
        (loss.embed_student(student), loss.teacher_bank, loss.normalizers[0]),
        (loss.embed_teacher(teacher), loss.student_bank, loss.normalizers[1]),
    )
    value = torch.zeros((), device=student.device)
    for embedding, bank, log_z in sides:
        rows = bank.index_select(0, drawn.view(-1)).view(*drawn.shape, -1)
        scores = torch.bmm(rows, F.normalize(embedding)[..., None])[..., 0]
        v = (scores / loss.temperature).exp() / log_z.exp()
        of_own = v[:, 0] / (v[:, 0] + noise + 1e-7)
        of_others = noise / (v[:, 1:] + noise + 1e-7)
        value = value - (of_own.log().sum() + of_others.log().sum()) / len(embedding)
    return value


def flow(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Both kernels one after the other, distances from a product."""

    def choices(x: Tensor) -> list[Tensor]:
        unit = x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-7)
        squares = x.pow(2).sum(1)
        distances = ((squares[:, None] + squares[None] - 2 * x @ x.T).clamp(min=0) + 1e-6).sqrt()
        distances = distances * (1 - torch.eye(len(x), device=x.device))
        return [kernel / kernel.sum(1, keepdim=True) for kernel in ((unit @ unit.T + 1) / 2, 1 / (1 + distances))]

    pairs = zip(choices(student), choices(teacher), strict=True)
    return torch.stack([((s - t) * (s.log() - t.log())).mean() for s, t in pairs]).sum()


def cwd(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Softmaxes, and the logarithms of these; their temporaries are kept."""
    t, (n, c, h, w) = loss.temperature, student.shape
    maps = (student, teacher)
    if loss.normalize:
        norm = nn.BatchNorm2d(c, affine=False, track_running_stats=False)
        maps = norm(student), norm(teacher)
    p_s, p_t = ((x.reshape(-1, h * w) / t).softmax(1) for x in maps)
    return (p_t * (p_t.clamp_min(1e-30).log() - p_s.clamp_min(1e-30).log())).sum() * t**2 / (n * c)


def pkd(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """Channels to the front and back, as mmrazor's code does."""

    def norm(maps: Tensor) -> Tensor:
        n, c, h, w = maps.shape
        rows = maps.permute(1, 0, 2, 3).reshape(c, -1)
        rows = (rows - rows.mean(-1, keepdim=True)) / (rows.std(dim=-1, keepdim=True) + 1e-6)
        return rows.reshape(c, n, h, w).permute(1, 0, 2, 3)

    return F.mse_loss(norm(student), norm(teacher)) / 2


def mgd(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """The generation is ours."""
    n, _, h, w = student.shape
    mask = torch.where(torch.rand((n, 1, h, w)).to(student.device) > 1 - loss.mask_ratio, 0, 1)
    return F.mse_loss(loss.generation(student * mask), teacher, reduction='sum') / n


def fgd(
    loss: Any, student: Tensor, teacher: Tensor, padded_boxes: Tensor, input_size: Any, image_sizes: Tensor
) -> Tensor:
    """Boxes drawn one by one, roots of masks on whole maps, as in the authors' code. The context blocks are ours."""
    n, _, h, w = student.shape
    size = torch.tensor([w, h, w, h]) / torch.tensor([*input_size[::-1], *input_size[::-1]])
    foreground = torch.zeros(n, h, w)
    for image, boxes in enumerate(padded_boxes.cpu()):
        for box in boxes[boxes.isfinite().all(1)]:
            x1, y1, x2, y2 = [int(f(v)) for f, v in zip((floor, floor, ceil, ceil), box * size, strict=True)]
            cells = foreground[image, y1 : y2 + 1, x1 : x2 + 1]
            foreground[image, y1 : y2 + 1, x1 : x2 + 1] = cells.clamp_min(1 / (x2 - x1 + 1) / (y2 - y1 + 1))
    background = (foreground == 0).float()
    background = background / background.sum((1, 2), keepdim=True).clamp_min(1)
    (s_t, a_t), (s_s, a_s) = (
        (
            h * w * (maps.abs().mean(1) / loss.temperature).flatten(1).softmax(1).view(n, h, w),
            maps.size(1) * (maps.abs().mean((2, 3)) / loss.temperature).softmax(1),
        )
        for maps in (teacher, student)
    )

    def masked(mask: Tensor) -> Tensor:
        roots = mask.to(student.device).unsqueeze(1).sqrt(), s_t.unsqueeze(1).sqrt(), a_t[:, :, None, None].sqrt()
        of_both = [maps * roots[1] * roots[2] * roots[0] for maps in (student, teacher)]
        return F.mse_loss(of_both[0], of_both[1], reduction='sum') / n

    attention = ((s_s - s_t).abs().sum() + (a_s - a_t).abs().sum()) / n
    whole = [
        maps + block(maps)[:, :, None, None]
        for maps, block in ((student, loss.context_student), (teacher, loss.context_teacher))
    ]
    value = loss.alpha * masked(foreground) + loss.beta * masked(background) + loss.gamma * attention
    return value + loss.lam * F.mse_loss(whole[0], whole[1], reduction='sum') / n


def sigmoid_kd(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor], assignments: Any) -> Tensor:
    """All positions in one row of classes each, and logarithms of probabilities."""
    classes, t = student[0].size(1), loss.temperature
    z_s, z_t = (torch.cat([x.permute(0, 2, 3, 1).reshape(-1, classes) for x in side]) for side in (student, teacher))
    q_s, q_t = (z_s / t).sigmoid().clamp(1e-12, 1 - 1e-7), (z_t / t).sigmoid().clamp(1e-12, 1 - 1e-7)
    value = q_t * (q_t.log() - q_s.log()) + (1 - q_t) * ((1 - q_t).log() - (1 - q_s).log())
    return t**2 * value.sum() / (torch.cat(list(assignments)) < classes).sum().clamp_min(1)


def qfl_kd(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor], assignments: Any) -> Tensor:
    """All positions in one row of classes each, as mmdet's QualityFocalLoss takes them."""
    classes = student[0].size(1)
    z_s, z_t = (torch.cat([x.permute(0, 2, 3, 1).reshape(-1, classes) for x in side]) for side in (student, teacher))
    target = z_t.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(z_s, target, reduction='none')
    value = (entropy * (target - z_s.sigmoid()).abs().pow(loss.beta)).sum(1)
    return value.sum() / (torch.cat(list(assignments)) < classes).sum().clamp_min(1)


def ld(
    loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor], assignments: Any, padded_boxes: Tensor
) -> Tensor:
    """Level by level, every position in a row before the positive ones are taken, as in mmdet's LDHead."""
    values, half, t = [], len(student) // 2, loss.temperature
    for scores, z_s, z_t, labels in zip(student[:half], student[half:], teacher[half:], assignments, strict=True):
        bins = z_s.size(1) // 4
        weights = scores.detach().permute(0, 2, 3, 1).reshape(-1, scores.size(1)).sigmoid().max(1)[0]
        here = (labels < scores.size(1)).nonzero().squeeze(1)
        of_both = [x.permute(0, 2, 3, 1).reshape(-1, 4 * bins)[here].reshape(-1, bins) / t for x in (z_s, z_t)]
        found = F.kl_div(of_both[0].log_softmax(1), of_both[1].softmax(1), reduction='none').mean(1) * t**2
        values.append((found * weights[here][:, None].expand(-1, 4).reshape(-1)).sum() / 4)
    return torch.stack(values).sum()


def cross_kd(loss: Any, student: Sequence[Tensor], teacher: Sequence[Tensor], assignments: Any) -> Tensor:
    """Every position in a row of classes and in four of bins, before those of positive ones are taken."""
    half, found = len(student) // 2, []
    for z_s, z_t in zip(student[half:], teacher[half:], strict=True):
        rows = [x.permute(0, 2, 3, 1).reshape(-1, 4, x.size(1) // 4) / loss.temperature for x in (z_s, z_t)]
        kl = F.kl_div(rows[0].log_softmax(2), rows[1].softmax(2), reduction='none')
        found.append(kl.sum(2).mean(1) * loss.temperature**2)
    classes = student[0].size(1)
    scores = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, classes) for x in teacher[:half]]).sigmoid().amax(1)
    weights = scores * (torch.cat(list(assignments)) < classes)
    boxes = (torch.cat(found) * weights).sum() / weights.sum().clamp_min(1)
    return qfl_kd(loss, student[:half], teacher[:half], assignments) + loss.box_weight * boxes


#: By the name of the loss or function.
ENTRIES = {
    # logits
    'KDLoss': Entry(LOGITS, kd),
    'KDLoss: standardised': Entry(LOGITS, kd, {'temperature': 2.0, 'standardize': True}),
    'DKDLoss': Entry(LOGITS, dkd),
    'DISTLoss': Entry(LOGITS, dist),
    'LwFLoss': Entry(OLDER_LOGITS, lwf),
    'ILODLoss': Entry(OLDER_BRANCHES, ilod, signed=True),
    # maps: hints, attention, selectivity
    'FitNetLoss': Entry(MAPS, fitnet, takes='a convolution and its batch norm on every map'),
    'ATLoss': Entry(MAPS, attention, takes='squares of every map'),
    'NSTLoss': Entry(MAPS, nst, broadcasts=True, takes='products of all channels, in three matrices of each image'),
    'ReviewKDLoss': Entry(STAGES_AND_VECTOR, reviewkd, takes='a 3x3 convolution and two 1x1 on every map'),
    'hcl_loss': Entry(MAPS, hcl, takes='differences and averages of every map'),
    # maps: margins, information, attention over layers
    'OFDLoss': Entry(STAGES, ofd, signed=True, connect=connect_behind_norms,
                     takes='a 1x1 convolution and its batch norm on every map'),
    'VIDLoss': Entry(MAPS, vid, takes='three 1x1 convolutions on every map'),
    'SemCKDLoss': Entry(STAGES, semckd, {'batch_size': 64},
                        takes='for every pair of stages a 3x3 convolution, on twice the channels of the teacher'),
    # relations between samples
    'PKTLoss': Entry(VECTORS, pkt),
    'SPLoss': Entry(LAST_MAPS, sp, takes='products of whole maps'),
    'CCLoss: kernel': Entry(VECTORS, cc),
    'CCLoss: embedded': Entry(VECTORS, cc_embedded, {'form': 'embedded'}),
    'LPLoss': Entry(VECTORS, lp, {'sigma2': 'mean'}, broadcasts=True),
    'RKDLoss: distances': Entry(VECTORS, rkd_distances, {'angle_weight': 0.0}),
    'RKDLoss: angles': Entry(VECTORS, rkd_angles, {'distance_weight': 0.0}, broadcasts=True),
    'IRGLoss': Entry(VECTORS, irg),
    # relations between layers
    'IRGTransformLoss': Entry(BLOCKS, irg_transform, takes='averages of two maps a stage, in both networks'),
    'FSPLoss': Entry(STAGES, fsp, broadcasts=True, takes='pooling, and products of all channels of two maps'),
    'KDSVDLoss': Entry(STAGES, kdsvd, takes="every image's eigenvectors at every stage, in both networks"),
    # trained in stages
    'MHGDLoss': Entry(STAGES, mhgd, connect=connect_to_heads,
                      takes="every image's eigenvectors at every stage, in both networks"),
    'MHGDHeadsLoss': Entry(STAGES, mhgd_heads, {'head_drop': 0.0},
                           takes="every image's eigenvectors at every stage"),
    'ParaphraserLoss': Entry(LAST_MAPS, paraphraser, takes='six 3x3 convolutions of all channels'),
    'FTLoss': Entry(LAST_MAPS, ft, connect=connect_to_paraphraser,
                    takes="three 3x3 convolutions, and as many of the paraphraser's"),
    'ABLoss': Entry(STAGES, ab, signed=True, takes='a 1x1 convolution and its batch norm on every map'),
    # memory
    'CRDLoss': Entry(BANKED_VECTORS, crd, connect=connect_to_banks,
                     takes='products with all of 50,000 samples, and drawing 16,384 for each'),
    # several teachers, auxiliary teachers
    'EnsembleKDLoss': Entry(TEACHERS_LOGITS, ensemble_kd),
    'ConfidentEnsembleKDLoss': Entry(TEACHERS_LOGITS, None),
    'RepresentationGraphLoss': Entry(TEACHERS_VECTORS, None),
    'LogitsGraphLoss': Entry(TEACHERS_LOGITS, None),
    'FlowLoss': Entry(VECTORS, flow),
    # detection: dense heads
    'BCKDLoss': Entry(BOX_HEADS, None, signed=True, connect=connect_to_points, takes='boxes of all positions'),
    'CrossKDLoss': Entry(GFL_HEADS, cross_kd, {'boxes': 'distributions'}, signed=True),
    'DenseKDLoss': Entry(HEADS, sigmoid_kd, signed=True),
    'LDLoss': Entry(GFL_HEADS, ld, signed=True),
    'LDLoss: valuable region': Entry(GFL_HEADS, None, {'valuable_weight': 1.0}, signed=True, connect=connect_to_anchors,
                                     takes='IoUs and distances of all boxes and anchors'),
    'QFLKDLoss': Entry(HEADS, qfl_kd, signed=True),
    # detection: feature maps
    'CWDLoss': Entry(NECKS, cwd, signed=True),
    'CWDLoss: normalised': Entry(NECKS, cwd, {'normalize': True}, signed=True),
    'FGDLoss': Entry(NECKS, fgd, signed=True),
    'MGDLoss': Entry(NECKS, mgd, same=False, signed=True, takes='two 3x3 convolutions of all channels'),
    'PKDLoss': Entry(NECKS, pkd, signed=True),
}  # fmt: skip
