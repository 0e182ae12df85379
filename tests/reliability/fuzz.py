"""Random input to what reads configs and headers: told in an error, or taken and right."""

import copy
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmkd_plugin.distillation.read_losses import read_on, read_schedule, read_through
from mmkd_plugin.distillation.schedule import check_schedules
from mmkd_plugin.facts import Progress
from mmkd_plugin.networks import Tap
from mmkd_plugin.store import Header, Shifted, TopK, Whole
from tests.reliability.case import Case

#: How many inputs each is tried with by the command.
EXAMPLES = 2000

_NAMES = st.sampled_from(['student', 'teacher', 'a', 'b', 'peer', 'teachers', '', 'studnt'])
_PATHS = st.sampled_from(
    ['head.fc', 'neck', 'backbone.layer4', 'x@2', 'x:input', 'x[0][1]', '', '@', '[', 'x@', 'a[-1]']
)
_JUNK = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=True) | st.text(max_size=5)
_VALUES = _PATHS | st.lists(_PATHS, max_size=3) | _JUNK
_RIGHT = st.sampled_from(['head.fc', 'neck', 'x@2', 'x:input', 'x[0][1]'])
_LISTS = _RIGHT | st.lists(_RIGHT, min_size=1, max_size=3)
_NAMED = st.dictionaries(st.sampled_from(['student', 'teacher', 'a', 'peer']), _LISTS, min_size=1, max_size=3)
_ON = (
    _LISTS
    | _NAMED
    | st.lists(_NAMED | _RIGHT, max_size=2)
    | st.recursive(
        _VALUES | st.dictionaries(_NAMES, _VALUES, max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=2),
        max_leaves=6,
    )
)
_SIDES = st.sampled_from([('student', 'teacher'), ('student', 'teachers'), ('student',), ('teacher',)])
_COUNTS = st.integers(-2, 12)
_SCHEDULES = st.fixed_dictionaries({}, optional={
    'begin': _COUNTS | _JUNK, 'end': _COUNTS | _JUNK, 'warmup': _COUNTS | _JUNK, 'decay': _COUNTS | _JUNK,
    'final': st.floats(-0.5, 1.5) | _JUNK, 'by_epoch': st.booleans() | _JUNK,
    'curve': st.sampled_from(['linear', 'cosine', 'exponential', 'sine']) | _JUNK, 'star': _JUNK,
})  # fmt: skip
_LIKELY = st.fixed_dictionaries({}, optional={
    'begin': st.integers(0, 4), 'end': st.none() | st.integers(3, 9), 'warmup': st.integers(0, 4),
    'decay': st.integers(0, 4), 'final': st.sampled_from([0.0, 0.1, 1.0]), 'by_epoch': st.booleans(),
    'curve': st.sampled_from(['linear', 'cosine', 'exponential']),
})  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def on(drawn: Any, sources: list[str], teacher: str | None, learner: str, sides: tuple[str, ...]) -> None:
    """Sides with at least one tap each, of those that there are."""
    found = read_on(drawn, 'loss_x', sources, teacher, learner, sides)
    names = {learner, *sources, 'student'}
    assert found, 'nothing is read'
    assert set(found) <= names, found
    assert ('student' in sides) == (learner in found), found
    for taps in found.values():
        assert taps
        assert all(Tap.parse(str(tap)) == tap for tap in taps), found


def through(drawn: Any) -> None:
    """Taps whose written form means the same."""
    for tap in read_through(drawn, 'losses'):
        assert Tap.parse(str(tap)) == tap


def schedule(drawn: dict[str, Any], epochs: int, iterations: int) -> None:
    """Factors in [0, 1], 0 outside of the interval, and an error where it would never count."""
    made = read_schedule(drawn, 'loss_x')
    for time_ in range(epochs + 1):
        factor = made.factor(Progress(time_, time_))
        assert math.isfinite(factor), made
        assert 0 <= factor <= 1, made
        outside = time_ < made.begin or (made.end is not None and time_ >= made.end)
        assert not (outside and factor), made
    check_schedules([('loss_x', made)], Progress(0, 0, epochs, iterations))
    length = epochs if made.by_epoch else iterations
    assert all(made.factor(Progress(time_, time_)) for time_ in range(length)), f'{made} rests, alone, and was taken'


def header(place: int, key: str, value: Any) -> None:
    """Signed as a stranger would sign it: refused, or a header that comes back as it is."""
    content = json.loads(_HEADER.to_text())
    del content['sha256']
    target: Any = content
    for _ in range(place):
        inner = [child for child in target.values() if isinstance(child, dict)] if isinstance(target, dict) else []
        target = inner[place % len(inner)] if inner else target
    keys = sorted(target)
    target[key if key and place % 2 else keys[place % len(keys)]] = copy.deepcopy(value)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    found = Header.from_text(json.dumps({**content, 'sha256': digest}), Path('store'))
    assert Header.from_text(found.to_text(), Path('store')).to_text() == found.to_text()
    assert found.payload >= 0
    found.check(_HEADER.identity, Path('store'))
    assert found.entries == 5, 'another number of entries for the same data'


_HEADER = Header(
    {'seed': 0, 'data': {'digest': 'abc', 'entries': 5}, 'pipeline': [['crop', {'padding': 2}]]},
    5,
    (1, 28, 28),
    {'head.fc': Shifted((10,), 'float16'), 'b': Whole((4, 2), 'float32'), 'k': TopK((9,), 'float16', (4.0,), 3)},
    {'classes': None, 'channels_last': []},
)
_SOURCES = st.lists(st.sampled_from(['teacher', 'a', 'b', 'peer']), max_size=3, unique=True)
TARGETS: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    'on, with one teacher': (on, {
        'drawn': _ON, 'sources': st.just(['teacher']), 'teacher': st.none(), 'learner': st.just('student'),
        'sides': _SIDES}),
    'sides, with any sources and learners': (on, {
        'drawn': _ON, 'sources': _SOURCES, 'teacher': st.none() | _NAMES, 'learner': _NAMES, 'sides': _SIDES}),
    'through': (through, {'drawn': _ON}),
    'schedules': (schedule, {
        'drawn': _SCHEDULES | _LIKELY, 'epochs': st.integers(1, 9), 'iterations': st.integers(1, 30)}),
    'store headers': (header, {'place': st.integers(0, 9), 'key': st.text(max_size=6), 'value': _JSON}),
}  # fmt: skip


def cases() -> Iterator[Case]:
    """One for each reader."""
    for name in TARGETS:
        yield Case(name, functools.partial(run, name))


def run(name: str, folder: Path, examples: int = EXAMPLES) -> dict[str, Any]:
    """Try so many inputs; what is neither taken nor told is found."""
    check, strategies = TARGETS[name]
    counts = {'taken': 0, 'told': 0}

    def tried(**drawn: Any) -> None:
        try:
            check(**drawn)
        except AssertionError:
            raise
        except (ValueError, TypeError) as error:
            if not str(error):
                raise AssertionError('an error that says nothing') from error
            counts['told'] += 1
        else:
            counts['taken'] += 1

    quiet = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    begun = time.process_time()
    try:
        quiet(given(**strategies)(tried))()
        found = 'fine'
    except Exception as error:
        notes = ' '.join(getattr(error, '__notes__', ()))
        found = f'{type(error).__name__}: {error} {notes}'[:600]
    return {'verdict': found, **counts, 'seconds': round(time.process_time() - begun, 1)}
