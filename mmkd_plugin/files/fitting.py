"""Weights into a model: every name and shape must fit, and where renaming would help, the error says how."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

_SHOWN = 8
_TRIED = 5

#: A regular expression, and what its matches in names become.
Rule = tuple[str, str]
#: What is wrong, and the names it is wrong with.
Misfits = dict[str, list[str]]

_MISSING = 'missing (in the model, not in the file)'
_EXTRA = 'unexpected (in the file, not in the model)'
_ADVICE = (
    'Give the config that this file was trained with. Keys that may differ are named by '
    "prefix: allow_missing=['...'], allow_unexpected=['...']"
)


def load_exactly(
    model: nn.Module,
    state: Mapping[str, Any],
    source: str,
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
    revise_keys: Sequence[Rule] = (),
) -> None:
    """Load weights; every key and shape must match.

    Args:
        model: What to load into.
        state: Names and tensors.
        source: What the weights are called in the error.
        allow_missing: Prefixes of the model's keys that may be absent.
        allow_unexpected: Prefixes of extra keys that may be ignored.
        revise_keys: Regular expressions and replacements, applied to the file's names one after
            the other, as in mmengine's ``load_checkpoint``.

    Raises:
        ValueError: If keys are missing, extra, or differ in shape, if revised names collide, or if
            weights are not finite.
    """
    own = model.state_dict()
    state = rename(state, revise_keys, source)
    problems = misfits(own, state, allow_missing, allow_unexpected)
    if problems:
        hint = _hint(own, state, revise_keys, allow_missing, allow_unexpected)
        raise ValueError(
            f"'{source}' does not fit {type(model).__name__}:\n  " + '\n  '.join(told(problems)) + f'\n{hint}'
        )
    state = {key: value for key, value in state.items() if key in own}
    check_finite(state, source, own)
    model.load_state_dict(state, strict=False)


def check_finite(state: Mapping[str, Any], source: str, like: Mapping[str, Any] | None = None) -> None:
    """See that no weight is NaN or infinite.

    Args:
        state: Names and tensors.
        source: What the weights are called in the error.
        like: A model's own values: where these are not finite either (masks), it is meant.

    Raises:
        ValueError: If one is, with the first names.
    """
    broken = [name for name, value in state.items() if not _finite(value) and _finite((like or {}).get(name))]
    if broken:
        raise ValueError(
            f"'{source}' holds NaN or infinite weights, {len(broken)} of {len(state)} tensors: {_listed(broken)}. "
            'The training that wrote it had diverged: give an earlier checkpoint of it'
        )


def _finite(value: Any) -> bool:
    numbers = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    return not numbers or bool(torch.isfinite(value).all())


def rename(state: Mapping[str, Any], rules: Sequence[Rule], source: str) -> dict[str, Any]:
    """The same tensors under revised names.

    Raises:
        ValueError: If a rule cannot be applied, or two names become one.
    """
    names: dict[str, str] = {}
    for name in state:
        new = name
        for pattern, replacement in rules:
            try:
                new = re.sub(pattern, replacement, new)
            except (re.error, IndexError) as error:
                raise ValueError(f'revise_keys has ({pattern!r}, {replacement!r}): {error}') from error
        if new in names:
            raise ValueError(f"revise_keys turns both '{names[new]}' and '{name}' of '{source}' into '{new}'")
        names[new] = name
    return {new: state[name] for new, name in names.items()}


def misfits(
    own: Mapping[str, Any],
    state: Mapping[str, Any],
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
) -> Misfits:
    """What keeps weights from fitting a model.

    Args:
        own: The model's ``state_dict()``.
        state: The file's.
        allow_missing: Prefixes of the model's keys that may be absent.
        allow_unexpected: Prefixes of extra keys that may be ignored.

    Returns:
        Names by what is wrong with them; empty if all fit.
    """
    found: Misfits = {_MISSING: [], _EXTRA: [], 'of another shape': [], 'no tensors': []}
    for key, value in own.items():
        given = state.get(key)
        if key not in state:
            # files older than this counter lack it, and nothing reads it in evaluation
            if not key.startswith(tuple(allow_missing)) and not key.endswith('.num_batches_tracked'):
                found[_MISSING].append(key)
        elif isinstance(value, Tensor) and not isinstance(given, Tensor):
            found['no tensors'].append(f'{key} ({type(given).__name__})')
        elif isinstance(value, Tensor) and isinstance(given, Tensor) and value.shape != given.shape:
            shapes = f'{tuple(given.shape)} in the file, {tuple(value.shape)} in the model'
            found['of another shape'].append(f'{key}: {shapes}')
    found[_EXTRA] = [key for key in state if key not in own and not key.startswith(tuple(allow_unexpected))]
    return {what: names for what, names in found.items() if names}


def told(problems: Misfits) -> list[str]:
    """A line for each kind of misfit, with the first names."""
    return [f'{len(names)} {what}: {_listed(names)}' for what, names in problems.items()]


def _listed(names: Sequence[str]) -> str:
    return ', '.join(names[:_SHOWN]) + (' ...' if len(names) > _SHOWN else '')


def _hint(
    own: Mapping[str, Any],
    state: Mapping[str, Any],
    given: Sequence[Rule],
    allow_missing: tuple[str, ...],
    allow_unexpected: tuple[str, ...],
) -> str:
    """What to do: the line to write, if renaming lets the weights fit, or most of them."""

    def left(rules: Sequence[Rule]) -> Misfits:
        return misfits(own, rename(state, rules, ''), allow_missing, allow_unexpected)

    def size(problems: Misfits) -> int:
        return sum(map(len, problems.values()))

    tried: list[tuple[int, list[Rule], Misfits]] = []
    for rules in renamings(own, state):
        try:
            problems = left(rules)
        except ValueError:  # two names become one
            continue
        tried.append((size(problems), rules, problems))
    best = min((item[0] for item in tried), default=0)
    if not tried or best >= size(left([])):
        return _ADVICE
    best_ones = [(rules, problems) for number, rules, problems in tried if number == best]
    rules, problems = best_ones[0]
    line = ' or '.join(f'revise_keys={[*given, *rules]}' for rules, _ in best_ones)
    if not problems:
        return f'Everything fits with {line} beside its path'
    if len(problems.get(_MISSING, ())) * 2 > len(own):  # chance
        return _ADVICE
    text = f'With {line} beside its path, this is left:\n  ' + '\n  '.join(told(problems)) + '\n'
    parts = _parts(next(iter(problems.values())))
    fitting = (name for name in rename(state, rules, '') if name in own)
    # a part of which something fits is not another part, but of another architecture
    if len(problems) > 1 or any(name.startswith(tuple(parts)) for name in fitting):
        return text + _ADVICE
    if _MISSING in problems:
        text += 'Then the file holds a part of the model only: give one of the whole, or, if no loss reads what is '
        return text + f'missing, allow_missing={parts}'
    if _EXTRA in problems:
        return text + f'Then, if the rest of the file is not wanted, allow_unexpected={parts}'
    return text + _ADVICE


def _parts(names: Iterable[str]) -> list[str]:
    """The first components of names, as prefixes."""
    return sorted({f'{name.split(".")[0]}.' if '.' in name else name for name in names})


def renamings(own: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[list[Rule]]:
    """Rules that may turn a file's names into those of a model, found by comparing them from their ends.

    First one prefix in place of another for all names, then one for each part of the file:
    torchvision's ``layer1...`` is below ``backbone.`` here, and its ``fc`` below ``head.``.

    Args:
        own: The model's ``state_dict()``.
        state: The file's.

    Yields:
        Rules to try, the likelier first.
    """
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*(key.split('.') for key in state), strict=False))
    depth = len(list(shared)) + 1
    groups: dict[str, list[str]] = defaultdict(list)
    for key in state:
        groups['.'.join(key.split('.')[:depth])].append(key)
    places = _places(own)
    votes = {group: Counter(_votes(places, state, keys)) for group, keys in groups.items()}
    total = sum(votes.values(), Counter())
    for (old, new), _ in total.most_common(_TRIED):
        if old != new:
            yield [(f'^{re.escape(old)}', new)]
    chosen = {
        group: max(counts, key=lambda change: (counts[change], total[change]))
        for group, counts in votes.items() if counts
    }  # fmt: skip
    if len(set(chosen.values())) > 1:
        yield _rules(chosen, {group: keys != [group] for group, keys in groups.items()})


def _votes(
    places: Mapping[str, list[tuple[str, Any]]], state: Mapping[str, Any], keys: Iterable[str]
) -> Iterator[Rule]:
    """For each key, the changes of prefix that give a name and a shape of the model."""
    for key in keys:
        parts = key.split('.')
        shape = getattr(state[key], 'shape', None)
        ends = [('.'.join([*parts[:i], '']), places.get('.'.join(parts[i:]), ())) for i in range(len(parts))]
        found = [[(old, new) for new, its in there if its == shape] for old, there in ends]
        # a last layer for other classes has another shape, but its name (not only `weight`) says what it is
        found += [[(old, new) for new, _ in there] for old, there in ends[:-1]]
        yield from next(filter(None, found), [])


def _places(own: Mapping[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """By the end of a name, what can stand before it, and the shape of the tensor there."""
    places = defaultdict(list)
    for name, value in own.items():
        parts = name.split('.')
        for i in range(len(parts)):
            places['.'.join(parts[i:])].append(('.'.join([*parts[:i], '']), getattr(value, 'shape', None)))
    return places


def _rules(chosen: Mapping[str, Rule], is_module: Mapping[str, bool]) -> list[Rule]:
    """Rules that change most groups in one way, and each of the others in its own."""
    (old, new), _ = Counter(chosen.values()).most_common(1)[0]
    others, spared = [], []
    for group, (its_old, its_new) in chosen.items():
        if (its_old, its_new) == (old, new):
            continue
        end, dot = (r'\.', '.') if is_module[group] else ('$', '')
        if group.startswith(old):
            spared.append(re.escape(group.removeprefix(old)) + end)
        if len(its_old) > len(group):  # the group itself is what changes
            others.append((f'^{re.escape(its_old)}', its_new))
        else:
            others.append((f'^{re.escape(group)}{end}', its_new + group.removeprefix(its_old) + dot))
    default = f'^{re.escape(old)}' + (f'(?!{"|".join(spared)})' if spared else '')
    return ([] if old == new else [(default, new)]) + [rule for rule in others if rule[0] != rule[1]]
