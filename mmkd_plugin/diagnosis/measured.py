"""What `tools/diagnose.py` measures: plain numbers, from which findings and the report are made."""

from dataclasses import dataclass, field


@dataclass
class LossFacts:
    """Of one entry of ``losses``.

    Attributes:
        kind: Its class.
        learner: Who learns.
        on: Whether it was on in the steps that were measured.
        begins: From when on it counts, as text.
        factor: Of its schedule, in those steps, in [0, 1].
        most: The most that its schedule ever reaches in this run, in [0, 1].
        weight: Its ``loss_weight``; None where it has none of that name.
        values: In each step, weighted.
        share: Of the learner's gradient, mean over the measured steps, with its schedule at its most.
        cosine: With the task's gradient, mean; None where nobody knows.
    """

    kind: str
    learner: str
    on: bool = False
    begins: str = ''
    factor: float = 0.0
    most: float = 1.0
    weight: float | None = None
    values: list[float] = field(default_factory=list)
    share: float | None = None
    cosine: float | None = None


@dataclass
class TapFacts:
    """Of one tapped value in the first measured step.

    Attributes:
        loss: Who reads it.
        side: ``student``, or a source.
        tap: Where.
        shape: With the rows first.
        rms: Root of its mean square.
        dead: Share of channels that are zero everywhere.
        constant: Share of channels that do not change from row to row or place to place, the dead included.
    """

    loss: str
    side: str
    tap: str
    shape: tuple[int, ...]
    rms: float
    dead: float
    constant: float


@dataclass
class Softness:
    """Of predictions that a loss compares.

    Attributes:
        loss: Who compares them.
        side: ``student``, or a source.
        frozen: Whether that is a trained teacher.
        temperature: As configured.
        softened: Entropy at that temperature, divided by the logarithm of the number of classes; in [0, 1].
        plain: The same at temperature 1.
    """

    loss: str
    side: str
    frozen: bool
    temperature: float
    softened: float
    plain: float


@dataclass
class TeacherFacts:
    """Of one trained teacher, on the validation images that were looked at.

    Attributes:
        metric: In %; None where it cannot be evaluated.
        untrained: Whether the config says ``untrained=True``.
        other_input: Another normalisation with which it does clearly better, and its metric then.
        order: Pairs of class numbers (the teacher's, the label's) that a permutation explains.
        order_metric: Its metric if classes are permuted that way.
        order_told: Whether there were images enough to look for that.
        names: What its checkpoint and the data say of the classes, if they differ.
    """

    metric: float | None = None
    untrained: bool = False
    other_input: tuple[str, float] | None = None
    order: list[tuple[int, int]] = field(default_factory=list)
    order_metric: float | None = None
    order_told: bool = False
    names: str = ''


@dataclass
class Measured:
    """Everything.

    Attributes:
        config: Its path.
        checkpoint: Of the student; None: it is untrained.
        steps: How many were taken.
        at: The time of the run that they stand for, such as ``epoch 5``.
        error: What ended the steps early.
        refused: What ended them before the first.
        paths: What training reads of a teacher and its own pass disagree in.
        metric: Name of what teacher and student are compared by.
        images: How many validation images were looked at.
        classes: How many there are; None where nobody knows.
        student: Its metric in %.
        teachers: By name.
        losses: By name.
        total: In each step.
        task: In each step.
        task_share: By learner, of its gradient, what is its own losses'.
        taps: Of all losses.
        softness: Of the losses that compare predictions.
        moved: By how much of their norm the student's weights moved in a step, mean.
        moved_most: The same, as it would be at the highest learning rate of the schedule.
        rate: The learning rate in these steps, and the highest that is known of the schedule.
        input_rms: Of the images as the student sees them.
        seconds: Of a step by part: data, student, teachers, losses, update; medians.
        memory: By what it is for, in bytes.
        untold: What could not be found out.
    """

    config: str
    checkpoint: str | None = None
    steps: int = 0
    at: str = ''
    error: str = ''
    refused: str = ''
    paths: str = ''
    metric: str = ''
    images: int = 0
    classes: int | None = None
    student: float | None = None
    teachers: dict[str, TeacherFacts] = field(default_factory=dict)
    losses: dict[str, LossFacts] = field(default_factory=dict)
    total: list[float] = field(default_factory=list)
    task: list[float] = field(default_factory=list)
    task_share: dict[str, float] = field(default_factory=dict)
    taps: list[TapFacts] = field(default_factory=list)
    softness: list[Softness] = field(default_factory=list)
    moved: float | None = None
    moved_most: float | None = None
    rate: tuple[float, float] = (0.0, 0.0)
    input_rms: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    untold: list[str] = field(default_factory=list)
