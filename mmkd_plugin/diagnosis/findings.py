"""The one list of what can be wrong: the report, and docs/trouble.md, are made from it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .measured import LossFacts, Measured
from .teachers import error_of

#: A loss with a larger share of the gradient leaves the task nothing, one with a smaller does nothing.
MOST, LEAST = 0.99, 0.01
#: By how much of their norm weights may move in a step, and should move at the highest learning rate.
FASTEST, SLOWEST = 0.2, 1e-6
#: More waiting for data than this part of a step, and longer than this in seconds, is worth mending.
WAITING, WORTH = 0.5, 0.02


@dataclass(frozen=True)
class Finding:
    """Something that can be wrong.

    Attributes:
        name: One word, as the report prints it.
        test: What was measured gives what was seen, one text for each case; nothing where all is well.
        means: What it means.
        do: What to change.
    """

    name: str
    test: Callable[[Measured], Iterator[str]]
    means: str
    do: str


def found(measured: Measured) -> list[tuple[Finding, str]]:
    """All that is wrong, each with what was seen, in the order of the list."""
    return [(finding, text) for finding in FINDINGS for text in finding.test(measured)]


def markdown() -> str:
    """The list as docs/trouble.md has it."""
    rows = ['| finding | what it means | what to do |', '| --- | --- | --- |']
    return '\n'.join([*rows, *(f'| `{f.name}` | {f.means} | {f.do} |' for f in FINDINGS)])


def _refused(m: Measured) -> Iterator[str]:
    if m.refused:
        yield m.refused


def _not_finite(m: Measured) -> Iterator[str]:
    if m.error:
        yield f'step {m.steps + 1}: {m.error}'


def _paths(m: Measured) -> Iterator[str]:
    if m.paths:
        yield m.paths


def _untrained(m: Measured) -> Iterator[str]:
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


def _order(m: Measured) -> Iterator[str]:
    for name, teacher in m.teachers.items():
        if teacher.names:
            yield f"'{name}': {teacher.names}"
        elif _other_order(m, name):
            pairs = ', '.join(f'its {a} is {b} here' for a, b in teacher.order[:4])
            yield f"'{name}' reaches {teacher.metric:.1f} %, and {teacher.order_metric:.1f} % with classes exchanged: {pairs}"


def _other_order(m: Measured, name: str) -> bool:
    teacher = m.teachers[name]
    if teacher.metric is None or teacher.order_metric is None:
        return False
    return teacher.order_metric > teacher.metric + 10 and teacher.order_metric > 50


def _input(m: Measured) -> Iterator[str]:
    for name, teacher in m.teachers.items():
        if teacher.other_input is not None:
            other, metric = teacher.other_input
            yield f"'{name}' reaches {teacher.metric:.1f} %, and {metric:.1f} % with {other}"


def _no_better(m: Measured) -> Iterator[str]:
    for name, teacher in m.teachers.items():
        if m.checkpoint and m.student is not None and teacher.metric is not None and teacher.metric <= m.student:
            yield f"'{name}' reaches {teacher.metric:.1f} %, the student {m.student:.1f} % ({m.images} images)"


def _active(m: Measured) -> Iterator[tuple[str, LossFacts]]:
    for name, loss in m.losses.items():
        if loss.share is not None and m.task and any(m.task):
            yield name, loss


def _too_large(m: Measured) -> Iterator[str]:
    for name, loss in _active(m):
        if loss.share is not None and loss.share > MOST:
            yield f'{name} ({loss.kind}) makes {loss.share:.1%} of the gradient of the {loss.learner}{_weight(loss)}'


def _too_small(m: Measured) -> Iterator[str]:
    for name, loss in _active(m):
        if loss.share is not None and loss.share < LEAST and loss.weight != 0:
            yield f'{name} ({loss.kind}) makes {loss.share:.2%} of the gradient of the {loss.learner}{_weight(loss)}'


def _weight(loss: LossFacts) -> str:
    return '' if loss.weight is None else f', loss_weight={loss.weight:g}'


def _weightless(m: Measured) -> Iterator[str]:
    for name, loss in m.losses.items():
        if loss.weight == 0:
            yield f'{name} ({loss.kind}) has loss_weight=0'


def _ramp(m: Measured) -> Iterator[str]:
    for name, loss in m.losses.items():
        if loss.most < 0.5 and loss.weight != 0:
            yield f'the schedule of {name} ({loss.kind}) never gets above {loss.most:.3f} in this run'


def _against(m: Measured) -> Iterator[str]:
    for name, loss in _active(m):
        if loss.cosine is not None and loss.cosine < -0.3:
            yield f'{name} ({loss.kind}): the cosine with the gradient of the task is {loss.cosine:.2f}'


def _flat(m: Measured) -> Iterator[str]:
    for soft in m.softness:
        if soft.frozen and soft.softened > 0.999 and soft.plain < 0.95:
            yield (
                f'{soft.loss}: at temperature {soft.temperature:g} the entropy of {soft.side} is {soft.softened:.5f} of the '
                f'highest there is ({soft.plain:.3f} at 1)'
            )


def _hard(m: Measured) -> Iterator[str]:
    for soft in m.softness:
        if soft.frozen and soft.softened < 0.002:
            yield (
                f'{soft.loss}: at temperature {soft.temperature:g} the entropy of {soft.side} is {soft.softened:.5f} of the '
                'highest there is'
            )


def _dead(m: Measured) -> Iterator[str]:
    for tap in m.taps:
        if tap.constant > 0.5:
            what = 'are zero everywhere' if tap.dead > 0.5 else 'have one value everywhere'
            share = tap.dead if tap.dead > 0.5 else tap.constant
            yield f"{tap.loss} reads '{tap.tap}' of {tap.side}, where {share:.0%} of the channels {what}"


def _scales(m: Measured) -> Iterator[str]:
    for loss in dict.fromkeys(tap.loss for tap in m.taps):
        own = [tap for tap in m.taps if tap.loss == loss and tap.rms]
        sizes = [tap.rms for tap in own]
        if len({tap.side for tap in own}) > 1 and max(sizes) > 1000 * min(sizes):
            yield f'{loss} compares values of rms {min(sizes):.2g} with values of rms {max(sizes):.2g}'


def _still(m: Measured) -> Iterator[str]:
    if m.steps and m.moved_most is not None and (m.moved_most < SLOWEST or not m.rate[1]):
        yield (
            f"in a step the student's weights move by {m.moved_most:.1e} of their norm at the highest learning rate, "
            f'{m.rate[1]:g}'
        )


def _fast(m: Measured) -> Iterator[str]:
    risen = len(m.total) >= 6 and sum(m.total[-3:]) / 3 > 5 * max(m.total[0], 1e-12)
    if m.moved_most is not None and m.moved_most > FASTEST:
        yield (
            f"in a step the student's weights move by {m.moved_most:.2f} of their norm at the highest learning rate, "
            f'{m.rate[1]:g}'
        )
    elif risen and not m.error:
        yield f'the sum of losses went from {m.total[0]:.3g} to {m.total[-1]:.3g} in {m.steps} steps'


def _images(m: Measured) -> Iterator[str]:
    if m.input_rms is not None and not 0.05 < m.input_rms < 10:
        yield f'what the student sees has a root mean square of {m.input_rms:.3g}'


def _waiting(m: Measured) -> Iterator[str]:
    whole = sum(m.seconds.values())
    if m.seconds and m.seconds['data'] > WORTH and m.seconds['data'] > WAITING * whole:
        yield f'{m.seconds["data"]:.3f} s of {whole:.3f} s of a step are spent on waiting for data'


FINDINGS = (
    Finding(
        'refused', _refused,
        'The config, its files or its data do not fit together; training would end before the first step, too.',
        'What the message says. `python tools/list_modules.py CONFIG` lists module names and shapes; '
        '`python -m mmkd_plugin.doctor` looks at the environment.',
    ),
    Finding(
        'not-finite', _not_finite,
        'A loss became infinite or no number.',
        'Lower the learning rate or the weight of the loss that is named, or let it rise: `schedule=dict(warmup=5)`. If the '
        'images are named, look at files and `data_preprocessor`.',
    ),
    Finding(
        'teacher-sees-other-images', _paths,
        'What training shows or reads of the teacher is not what it computes by itself.',
        'Give both a `data_preprocessor` that differs in mean, std, channel order and padding value at most.',
    ),
    Finding(
        'teacher-untrained', _untrained,
        'The teacher predicts by chance: wrong checkpoint, untrained, or it sees something it was not trained on.',
        'Name its `checkpoint`; `python tools/test.py TEACHER_CONFIG CHECKPOINT` says what it reaches by itself. '
        '`TeacherEvalHook(at_least=...)` refuses such a run.',
    ),
    Finding(
        'class-order', _order,
        "The teacher's outputs mean other classes than the labels: its logits teach wrong ones.",
        'Give the data the classes in the order of the teacher, `metainfo=dict(classes=...)`; or compare features only.',
    ),
    Finding(
        'teacher-normalisation', _input,
        'The teacher is better with another normalisation than it is given, so it was trained with that.',
        "Correct the `data_preprocessor` of the teacher's config; the student's may be another, batches are re-normalised.",
    ),
    Finding(
        'teacher-no-better', _no_better,
        'The teacher is not better than the student already is. There is little to learn from it.',
        '`python tools/find_teacher.py CONFIG` looks for better ones; check the image size, which is the student\'s.',
    ),
    Finding(
        'weight-too-large', _too_large,
        f'The loss makes more than {MOST:.0%} of the gradient, so the labels have no say.',
        'Lower its `loss_weight` (weights of codes that average over batch and C classes are divided by C here), or bound it '
        "by the task: `optim_wrapper=dict(type='BoundedOptimWrapper')`.",
    ),
    Finding(
        'weight-too-small', _too_small,
        f'The loss makes less than {LEAST:.0%} of the gradient: it does next to nothing.',
        'Raise its `loss_weight`; a loss that is small because it is nearly reached needs none.',
    ),
    Finding(
        'weight-zero', _weightless,
        'The loss is off.',
        'Give it a `loss_weight`, or drop it: `losses=dict(NAME=None)`.',
    ),
    Finding(
        'schedule-never-full', _ramp,
        'The schedule ends, or is still rising, when the run does.',
        'A `warmup` or `begin` that fits into the run; by iteration with `by_epoch=False`.',
    ),
    Finding(
        'against-the-task', _against,
        'The loss pulls the student away from what the labels want.',
        'If it lasts (`DiagnoseHook` logs it): look at class order and taps, lower its weight.',
    ),
    Finding(
        'temperature-too-high', _flat,
        'Softened so much, the prediction says the same of all classes; what is left is matching of logits, with a '
        'gradient that shrinks as the temperature grows unless the loss multiplies by its square.',
        'A temperature of 1 to 10, or a loss of logits that is meant so.',
    ),
    Finding(
        'temperature-too-low', _hard,
        'The prediction names one class and nothing else: it teaches what the labels say already.',
        'A higher `temperature`, such as 4.',
    ),
    Finding(
        'dead-tap', _dead,
        'Most channels of a tapped value carry nothing: a layer that is switched off, or the wrong place.',
        'Tap another module (`python tools/list_modules.py CONFIG`); look at the weights of the layers before it.',
    ),
    Finding(
        'scales-differ', _scales,
        'The loss compares values that differ a thousandfold in size; if it takes them as they are, one side decides.',
        'Tap behind a norm, or take a loss that normalises (AT, NST, PKD, CWD).',
    ),
    Finding(
        'student-stands-still', _still,
        'The learning rate of the student is zero or next to it.',
        'Look at `optim_wrapper`, `param_scheduler`, `paramwise_cfg`, `frozen_stages`.',
    ),
    Finding(
        'learning-rate-too-large', _fast,
        'The steps are so long that training will not settle.',
        'Lower the learning rate, clip (`clip_grad=dict(max_norm=...)`) or warm up.',
    ),
    Finding(
        'images-not-normalised', _images,
        'Networks expect values of about 1.',
        'Give `data_preprocessor` the mean and std of the data.',
    ),
    Finding(
        'data-bound', _waiting,
        'The device waits for data.',
        'More `num_workers` with `persistent_workers=True`, smaller images on disk, cheaper transforms.',
    ),
)  # fmt: skip
