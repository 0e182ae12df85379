"""One function for each finding: what was seen of it in what was measured, one text for each case."""

from collections.abc import Iterator

from .measured import LossFacts, Measured
from .teachers import error_of

#: A loss with a larger share of the gradient leaves the task nothing, one with a smaller does nothing.
MOST, LEAST = 0.99, 0.01
#: By how much of their norm weights may move in a step, and should move at the highest learning rate.
FASTEST, SLOWEST = 0.2, 1e-6
#: More waiting for data than this part of a step, and longer than this in seconds, is worth mending.
WAITING, WORTH = 0.5, 0.02


def refused(m: Measured) -> Iterator[str]:
    """What ended the run before its first step."""
    if m.refused:
        yield m.refused


def not_finite(m: Measured) -> Iterator[str]:
    """What ended the steps."""
    if m.error:
        yield f'step {m.steps + 1}: {m.error}'


def paths(m: Measured) -> Iterator[str]:
    """In what the two ways to a teacher differ."""
    if m.paths:
        yield m.paths


def untrained(m: Measured) -> Iterator[str]:
    """Teachers that predict by chance, or are to."""
    for name, teacher in m.teachers.items():
        if teacher.untrained:
            yield f"'{name}' says untrained=True"
        elif teacher.metric is not None and _by_chance(m, teacher.metric) and not _other_order(m, name):
            yield f"'{name}' reaches {teacher.metric:.1f} % on {m.images} validation images, hardly more than chance"


def _by_chance(m: Measured, metric: float) -> bool:
    if 'mAP' in m.metric:
        return metric < 1.0
    chance = 100 / m.classes if m.classes else 0.0
    return bool(m.classes) and metric < 1.5 * chance + 2 * error_of(chance, m.images)


def order(m: Measured) -> Iterator[str]:
    """Teachers whose classes are in another order."""
    for name, teacher in m.teachers.items():
        if teacher.names:
            yield f"'{name}': {teacher.names}"
        elif _other_order(m, name):
            pairs = ', '.join(f'its {a} is {b} here' for a, b in teacher.order[:4])
            exchanged = f'{teacher.order_metric:.1f} % with classes exchanged: {pairs}'
            yield f"'{name}' reaches {teacher.metric:.1f} %, and {exchanged}"


def _other_order(m: Measured, name: str) -> bool:
    teacher = m.teachers[name]
    if teacher.metric is None or teacher.order_metric is None:
        return False
    return teacher.order_metric > teacher.metric + 10 and teacher.order_metric > 50


def input(m: Measured) -> Iterator[str]:
    """Teachers that do better with another normalisation."""
    for name, teacher in m.teachers.items():
        if teacher.other_input is not None:
            other, metric = teacher.other_input
            yield f"'{name}' reaches {teacher.metric:.1f} %, and {metric:.1f} % with {other}"


def no_better(m: Measured) -> Iterator[str]:
    """Teachers that are no better than the student of the checkpoint."""
    for name, teacher in m.teachers.items():
        if m.checkpoint and m.student is not None and teacher.metric is not None and teacher.metric <= m.student:
            yield f"'{name}' reaches {teacher.metric:.1f} %, the student {m.student:.1f} % ({m.images} images)"


def _active(m: Measured) -> Iterator[tuple[str, LossFacts]]:
    for name, loss in m.losses.items():
        if loss.share is not None and m.task and any(m.task):
            yield name, loss


def too_large(m: Measured) -> Iterator[str]:
    """Losses that leave the task nothing."""
    for name, loss in _active(m):
        if loss.share is not None and loss.share > MOST:
            yield f'{name} ({loss.kind}) makes {loss.share:.1%} of the gradient of the {loss.learner}{_weight(loss)}'


def too_small(m: Measured) -> Iterator[str]:
    """Losses that do next to nothing."""
    for name, loss in _active(m):
        if loss.share is not None and loss.share < LEAST and loss.weight != 0:
            yield f'{name} ({loss.kind}) makes {loss.share:.2%} of the gradient of the {loss.learner}{_weight(loss)}'


def _weight(loss: LossFacts) -> str:
    return '' if loss.weight is None else f', loss_weight={loss.weight:g}'


def weightless(m: Measured) -> Iterator[str]:
    """Losses that are off."""
    for name, loss in m.losses.items():
        if loss.weight == 0:
            yield f'{name} ({loss.kind}) has loss_weight=0'


def ramp(m: Measured) -> Iterator[str]:
    """Schedules that never get half way."""
    for name, loss in m.losses.items():
        if loss.most < 0.5 and loss.weight != 0:
            yield f'the schedule of {name} ({loss.kind}) never gets above {loss.most:.3f} in this run'


def against(m: Measured) -> Iterator[str]:
    """Losses that pull away from the task."""
    for name, loss in _active(m):
        if loss.cosine is not None and loss.cosine < -0.3:
            yield f'{name} ({loss.kind}): the cosine with the gradient of the task is {loss.cosine:.2f}'


def flat(m: Measured) -> Iterator[str]:
    """Teachers whose softened predictions are uniform, and are not by themselves."""
    for soft in m.softness:
        if soft.frozen and soft.softened > 0.999 and soft.plain < 0.95:
            yield (
                f'{soft.loss}: at temperature {soft.temperature:g} the entropy of {soft.side} is {soft.softened:.5f} '
                f'of the highest there is ({soft.plain:.3f} at 1)'
            )


def hard(m: Measured) -> Iterator[str]:
    """Teachers whose predictions say one class alone."""
    for soft in m.softness:
        if soft.frozen and soft.softened < 0.002:
            yield (
                f'{soft.loss}: at temperature {soft.temperature:g} the entropy of {soft.side} is {soft.softened:.5f} '
                'of the highest there is'
            )


def dead(m: Measured) -> Iterator[str]:
    """Taps most of whose channels say nothing."""
    for tap in m.taps:
        if tap.constant > 0.5:
            what = 'are zero everywhere' if tap.dead > 0.5 else 'have one value everywhere'
            share = tap.dead if tap.dead > 0.5 else tap.constant
            yield f"{tap.loss} reads '{tap.tap}' of {tap.side}, where {share:.0%} of the channels {what}"


def scales(m: Measured) -> Iterator[str]:
    """Losses that compare values of other orders of magnitude."""
    for loss in dict.fromkeys(tap.loss for tap in m.taps):
        own = [tap for tap in m.taps if tap.loss == loss and tap.rms]
        sizes = [tap.rms for tap in own]
        if len({tap.side for tap in own}) > 1 and max(sizes) > 1000 * min(sizes):
            yield f'{loss} compares values of rms {min(sizes):.2g} with values of rms {max(sizes):.2g}'


def still(m: Measured) -> Iterator[str]:
    """Whether the student hardly moves at its highest learning rate."""
    if m.steps and m.moved_most is not None and (m.moved_most < SLOWEST or not m.rate[1]):
        yield (
            f"in a step the student's weights move by {m.moved_most:.1e} of their norm at the highest learning rate, "
            f'{m.rate[1]:g}'
        )


def fast(m: Measured) -> Iterator[str]:
    """Whether the student moves too far in a step, or its losses rise."""
    risen = len(m.total) >= 6 and sum(m.total[-3:]) / 3 > 5 * max(m.total[0], 1e-12)
    if m.moved_most is not None and m.moved_most > FASTEST:
        yield (
            f"in a step the student's weights move by {m.moved_most:.2f} of their norm at the highest learning rate, "
            f'{m.rate[1]:g}'
        )
    elif risen and not m.error:
        yield f'the sum of losses went from {m.total[0]:.3g} to {m.total[-1]:.3g} in {m.steps} steps'


def images(m: Measured) -> Iterator[str]:
    """Whether images are not normalised."""
    if m.input_rms is not None and not 0.05 < m.input_rms < 10:
        yield f'what the student sees has a root mean square of {m.input_rms:.3g}'


def waiting(m: Measured) -> Iterator[str]:
    """Whether most of a step is spent on waiting for data."""
    whole = sum(m.seconds.values())
    if m.seconds and m.seconds['data'] > WORTH and m.seconds['data'] > WAITING * whole:
        yield f'{m.seconds["data"]:.3f} s of {whole:.3f} s of a step are spent on waiting for data'
