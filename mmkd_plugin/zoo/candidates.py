"""Which models of the installed zoos could teach a student."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from ..files.configs import read_config
from ..teachers.network_spec import model_of
from ..teachers.preprocessing import Renormalize
from .layers import Layers, Place, in_common, look_at
from .metafiles import METRICS, Published, installed, published
from .traits import Traits

#: A rule of thumb: beyond one of these, consider an assistant in between. The first is a ratio of parameters, the
#: second points of the metric. TAKD (arXiv 1902.03393) shows that a gap can be too large, and has no such numbers:
#: these are ours, above the pairs that gained directly (16 times on digits). An assistant need not pay either, see
#: docs/methods/takd.md.
RATIO, POINTS = 20.0, 15.0


@dataclass
class Student:
    """Who is to be taught.

    Attributes:
        config: As it was given.
        traits: Of its config.
        model: Its plain model dictionary.
        layers: Of its network.
        metric: In %; None where nobody knows.
        source: Where the metric is from.
    """

    config: str
    traits: Traits
    model: Any
    layers: Layers
    metric: float | None = None
    source: str = ''


@dataclass
class Candidate:
    """Who could teach it.

    Attributes:
        published: From the model zoo.
        traits: Of its config.
        metric: In %.
        model: Its model dictionary.
        layers: Of its network, once somebody looked at it.
        common: Places that can be compared, the student's first.
        notes: What has to be known besides.
        too_far: Why an assistant is advised, by a rule of thumb; empty where it is not.
    """

    published: Published
    traits: Traits
    metric: float
    model: Any
    layers: Layers | None = None
    common: list[tuple[Place, Place]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    too_far: str = ''


@dataclass
class Search:
    """What was found.

    Attributes:
        student: Who is to be taught.
        metric: What models are compared by.
        candidates: In the order in which they are worth a look.
        refused: How many models of the zoos are none, by reason.
        packages: Whose zoos were looked into.
    """

    student: Student
    metric: str
    candidates: list[Candidate]
    refused: Counter[str]
    packages: list[str]


def search(config_name: str, better_than: float | None = None, options: Any = None) -> Search:
    """Look through all installed model zoos.

    Args:
        config_name: The student's config, plain or distilled.
        better_than: The student's metric in %; None: as published, where its network is.
        options: Changes of the config, as ``--cfg-options`` gives them.

    Returns:
        Candidates without their layers, see :func:`examine`.

    Raises:
        ValueError: If the config has no model, or is of a task that no zoo has metrics of.
        FileNotFoundError: If there is no such config.
    """
    config, _ = read_config(config_name)
    config.merge_from_dict(options or {})
    try:
        traits = Traits.of(config)
    except ValueError as error:
        raise ValueError(f"config '{config_name}': {error}") from error
    if traits.task not in METRICS:
        raise ValueError(
            f"config '{config_name}' is of a {config.model.get('type')}, expected a classifier (with a head) or a "
            'detector (with a bbox_head or roi_head): of other models the zoos have no metric to compare by'
        )
    model = model_of(config, config_name)
    student = Student(
        config_name, traits, model, look_at(model, side=traits.size), better_than, 'as given' if better_than else ''
    )
    refused: Counter[str] = Counter()
    found = list(_same_data(student, refused))
    if better_than is None:
        _read_metric(student, found)
    candidates = []
    for one in found:
        if student.metric is not None and one.metric <= student.metric:
            refused['not better than the student'] += 1
        elif one.published.weights is None:
            refused['without weights in one file'] += 1
        elif one.traits.network == traits.network and student.metric is None:
            refused['the student itself'] += 1
        else:
            candidates.append(one)
    for one in candidates:
        _judge(one, student)
    candidates.sort(key=lambda one: _order(one, student))
    return Search(student, METRICS[traits.task], candidates, refused, installed())


def _same_data(student: Student, refused: Counter[str]) -> Iterator[Candidate]:
    """The models of the student's task, data and classes."""
    own, read = student.traits, {}
    for entry in (entry for package in installed() for entry in published(package)):
        if own.task not in entry.metrics:
            refused['of another task, or without its metric'] += 1
        elif not _may_be_of(own.data, entry.metrics[own.task][0]):
            refused['of other data'] += 1
        else:
            if entry.path not in read:
                read[entry.path] = _read(entry)
            if (found := read[entry.path]) is None:
                refused['with a config that cannot be read'] += 1
            elif found[0].data != own.data:
                refused['of other data'] += 1
            elif found[0].classes != own.classes or (own.names and found[0].names != own.names):
                refused['of other classes'] += 1
            else:
                yield Candidate(entry, found[0], entry.metrics[own.task][1], found[1])


def _read(entry: Published) -> tuple[Traits, Any] | None:
    try:
        config = Config.fromfile(str(entry.path), import_custom_modules=False)
        return Traits.of(config), model_of(config, entry.spec)
    except Exception:  # configs are code, and some lack files or packages
        return None


def _may_be_of(data: str, told: str) -> bool:
    """Whether a metafile's name of a data set may mean this class; configs decide."""
    words = [re.sub('dataset|[^a-z0-9]', '', text.lower()) for text in (data, told)]
    words = [word.replace('pascal', '') for word in words]
    return bool(words[0]) and (words[0].startswith(words[1]) or words[1].startswith(words[0]))


def _read_metric(student: Student, found: Iterable[Candidate]) -> None:
    """That of the published model with the student's layers; the best where there are several trainings."""
    same = [one for one in found if one.traits.network == student.traits.network]
    if Path(student.config).is_file():  # a model of a zoo that is given itself is meant, and no better training of it
        same = [one for one in same if one.published.path == Path(student.config).resolve()] or same
    same = [one for one in same if one.published.spec == student.config] or same
    if same:
        best = max(same, key=lambda one: one.metric)
        student.metric, student.source = best.metric, f'published for {best.published.package} {best.published.name}'


def _judge(one: Candidate, student: Student) -> None:
    parameters = one.published.parameters
    ratio = parameters / student.layers.parameters if parameters else 0
    points = one.metric - student.metric if student.metric is not None else 0
    if ratio > RATIO:
        one.too_far = f'{ratio:.0f} times the parameters, more than {RATIO:g}'
    elif points > POINTS:
        one.too_far = f'{points:.1f} points better, more than {POINTS:g}'
    sizes = one.traits.size, student.traits.size
    if None not in sizes and sizes[0] != sizes[1]:
        one.notes.append(
            f"its metric is of {sizes[0]}x{sizes[0]} images, and it would be shown the student's, {sizes[1]}x{sizes[1]}"
        )


def _order(one: Candidate, student: Student) -> tuple[Any, ...]:
    other_backbone = one.traits.backbone != student.traits.backbone
    other_kind = one.model.get('type') != student.model.get('type')
    return bool(one.too_far), bool(one.notes), other_kind, other_backbone, -one.metric, one.published.name


def examine(one: Candidate, student: Student) -> None:
    """Build a candidate, and see what it has in common with the student; what does not work goes into its notes."""
    try:
        one.layers = look_at(one.model, student.layers.image, one.traits.size)
    except Exception as error:  # networks are anybody's code, and some need more packages
        one.notes.append(f'it cannot be built here: {type(error).__name__}: {str(error).splitlines()[0][:120]}')
        return
    if one.layers.problem:
        one.notes.append(f'its layers are not known, because it did not run on shapes alone: {one.layers.problem}')
    one.common = in_common(student.layers, one.layers)
    if problem := _unfit(one.model, student.model, student.traits.task):
        one.notes.append(problem)
    if one.published.parameters is None:
        ratio = one.layers.parameters / student.layers.parameters
        if ratio > RATIO and not one.too_far:
            one.too_far = f'{ratio:.0f} times the parameters, more than {RATIO:g}'


def _unfit(teacher: Any, student: Any, task: str) -> str:
    """Why a teacher could not be shown the student's images; empty where it can."""
    try:
        Renormalize(_preprocessor(student, task), _preprocessor(teacher, task), 'teacher')
    except Exception as error:  # a preprocessor is anybody's code
        return f"it cannot be shown the student's images: {str(error)[:300]}"
    return ''


def _preprocessor(model: Any, task: str) -> Any:
    """As the model itself builds it."""
    usual = 'DetDataPreprocessor' if task == 'Object Detection' else 'ClsDataPreprocessor'
    return MODELS.build({'type': usual, '_scope_': model.get('_scope_'), **(model.get('data_preprocessor') or {})})
