"""The one list of what can be wrong: the report, and docs/trouble.md, are made from it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import checks
from .checks import LEAST, MOST
from .measured import Measured


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


FINDINGS = (
    Finding(
        'refused', checks.refused,
        'The config, its files or its data do not fit together; training would end before the first step, too.',
        'What the message says. `python tools/list_modules.py CONFIG` lists module names and shapes; '
        '`python -m mmkd_plugin.doctor` looks at the environment.',
    ),
    Finding(
        'not-finite', checks.not_finite,
        'A loss became infinite or no number.',
        'Lower the learning rate or the weight of the loss that is named, or let it rise: `schedule=dict(warmup=5)`. '
        'If the images are named, look at files and `data_preprocessor`.',
    ),
    Finding(
        'teacher-sees-other-images', checks.paths,
        'What training shows or reads of the teacher is not what it computes by itself.',
        'Give both a `data_preprocessor` that differs in mean, std, channel order and padding value at most.',
    ),
    Finding(
        'teacher-untrained', checks.untrained,
        'The teacher predicts by chance: wrong checkpoint, untrained, or it sees something it was not trained on.',
        'Name its `checkpoint`; `python tools/test.py TEACHER_CONFIG CHECKPOINT` says what it reaches by itself. '
        '`TeacherEvalHook(at_least=...)` refuses such a run.',
    ),
    Finding(
        'class-order', checks.order,
        "The teacher's outputs mean other classes than the labels: its logits teach wrong ones.",
        'Give the data the classes in the order of the teacher, `metainfo=dict(classes=...)`, or compare features.',
    ),
    Finding(
        'teacher-normalisation', checks.input,
        'The teacher is better with another normalisation than it is given, so it was trained with that.',
        "Correct the `data_preprocessor` of the teacher's config; the student's may differ, batches are re-normalised.",
    ),
    Finding(
        'teacher-no-better', checks.no_better,
        'The teacher is not better than the student already is. There is little to learn from it.',
        '`python tools/find_teacher.py CONFIG` looks for better ones; check the image size, which is the student\'s.',
    ),
    Finding(
        'weight-too-large', checks.too_large,
        f'The loss makes more than {MOST:.0%} of the gradient, so the labels have no say.',
        'Lower its `loss_weight` (weights of codes that average over batch and C classes are divided by C here), or '
        "bound it by the task: `optim_wrapper=dict(type='BoundedOptimWrapper')`.",
    ),
    Finding(
        'weight-too-small', checks.too_small,
        f'The loss makes less than {LEAST:.0%} of the gradient: it does next to nothing.',
        'Raise its `loss_weight`; a loss that is small because it is nearly reached needs none.',
    ),
    Finding(
        'weight-zero', checks.weightless,
        'The loss is off.',
        'Give it a `loss_weight`, or drop it: `losses=dict(NAME=None)`.',
    ),
    Finding(
        'schedule-never-full', checks.ramp,
        'The schedule ends, or is still rising, when the run does.',
        'A `warmup` or `begin` that fits into the run; by iteration with `by_epoch=False`.',
    ),
    Finding(
        'against-the-task', checks.against,
        'The loss pulls the student away from what the labels want.',
        'If it lasts (`DiagnoseHook` logs it): look at class order and taps, lower its weight.',
    ),
    Finding(
        'temperature-too-high', checks.flat,
        'Softened so much, the prediction says the same of all classes; what is left is matching of logits, with a '
        'gradient that shrinks as the temperature grows unless the loss multiplies by its square.',
        'A temperature of 1 to 10, or a loss of logits that is meant so.',
    ),
    Finding(
        'temperature-too-low', checks.hard,
        'The prediction names one class and nothing else: it teaches what the labels say already.',
        'A higher `temperature`, such as 4.',
    ),
    Finding(
        'dead-tap', checks.dead,
        'Most channels of a tapped value carry nothing: a layer that is switched off, or the wrong place.',
        'Tap another module (`python tools/list_modules.py CONFIG`); look at the weights of the layers before it.',
    ),
    Finding(
        'scales-differ', checks.scales,
        'The loss compares values that differ a thousandfold in size; if it takes them as they are, one side decides.',
        'Tap behind a norm, or take a loss that normalises (AT, NST, PKD, CWD).',
    ),
    Finding(
        'student-stands-still', checks.still,
        'The learning rate of the student is zero or next to it.',
        'Look at `optim_wrapper`, `param_scheduler`, `paramwise_cfg`, `frozen_stages`.',
    ),
    Finding(
        'learning-rate-too-large', checks.fast,
        'The steps are so long that training will not settle.',
        'Lower the learning rate, clip (`clip_grad=dict(max_norm=...)`) or warm up.',
    ),
    Finding(
        'images-not-normalised', checks.images,
        'Networks expect values of about 1.',
        'Give `data_preprocessor` the mean and std of the data.',
    ),
    Finding(
        'data-bound', checks.waiting,
        'The device waits for data.',
        'More `num_workers` with `persistent_workers=True`, smaller images on disk, cheaper transforms.',
    ),
)  # fmt: skip
