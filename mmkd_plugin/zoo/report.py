"""What `tools/find_teacher.py` prints, and writes as JSON."""

from typing import Any

from .candidates import Candidate, Search, examine, search
from .layers import Place


def find_teacher(config: str, better_than: float | None, options: Any, limit: int) -> Search:
    """Search, and look at the first candidates' layers.

    Args:
        config: The student's.
        better_than: Its metric in %; None: as published.
        options: Changes of the config.
        limit: How many are looked at; the others stay unknown but for what their metafiles say.

    Raises:
        ValueError: As :func:`~.candidates.search`.
        FileNotFoundError: If there is no such config.
    """
    found = search(config, better_than, options)
    for one in found.candidates[:limit]:
        examine(one, found.student)
    return found


def plain(found: Search, limit: int) -> dict[str, Any]:
    """All of it as JSON takes it, with the first candidates."""
    student = found.student
    return {
        'student': {
            'config': student.config,
            'task': student.traits.task,
            'data': student.traits.data,
            'classes': student.traits.classes,
            'metric': student.metric,
            'metric_source': student.source,
            'parameters': student.layers.parameters,
            'macs': student.layers.macs,
            'image': list(student.layers.image),
        },
        'metric': found.metric,
        'packages': found.packages,
        'refused': dict(found.refused),
        'candidates_in_all': len(found.candidates),
        'candidates': [_plain(one, student.metric) for one in found.candidates[:limit]],
    }


def _plain(one: Candidate, metric: float | None) -> dict[str, Any]:
    entry, layers = one.published, one.layers
    return {
        'name': entry.name,
        'config': entry.spec,
        'weights': entry.weights,
        'metric': one.metric,
        'gap': None if metric is None else round(one.metric - metric, 4),
        'parameters': layers.parameters if layers else entry.parameters,
        'macs': layers.macs if layers and layers.macs else entry.flops,
        'taps': [{'student': s.tap, 'teacher': t.tap, 'shapes': [list(s.shape), list(t.shape)]} for s, t in one.common],
        'assistant': one.too_far,
        'notes': one.notes,
        'line': entry.line,
    }


def text(found: Search, limit: int) -> str:
    """For people."""
    student = found.student
    known = f'{student.metric:.2f} ({student.source})' if student.metric is not None else 'unknown'
    lines = [
        f'Student: {student.config}, {student.traits.task.lower()} of {student.traits.classes} classes on '
        f'{student.traits.data or "data that the config does not name"}',
        f'  {_cost(student.layers.parameters, student.layers.macs)} on images of {student.layers.image}; '
        f'{found.metric} {known}',
    ]
    if student.layers.problem:
        lines.append(f'  its layers are not known, because it did not run on shapes alone: {student.layers.problem}')
    if student.metric is None:
        lines.append('  Its metric is published nowhere: --better-than N leaves out what is no better than N %.')
    looked = (
        f'Looked through {sum(found.refused.values()) + len(found.candidates)} models of {", ".join(found.packages)}'
    )
    if not found.candidates:
        lines += [f'\n{looked}: none fits.', *_reasons(found), *_advice(found)]
        return '\n'.join(lines)
    lines.append(f'\n{looked}: {len(found.candidates)} could teach it.')
    for number, one in enumerate(found.candidates[:limit], 1):
        lines += ['', *_lines(number, one, student.metric, found.metric)]
    if len(found.candidates) > limit:
        lines.append(f'\n... and {len(found.candidates) - limit} more: --limit {len(found.candidates)}')
    lines += ['\nThe others:', *_reasons(found)]
    if any(one.too_far for one in found.candidates[:limit]):
        lines.append(
            '\nWhere an assistant is advised, that is a rule of thumb and no measurement of this pair: a network of a '
            'size in between\nfirst learns from the teacher, and then teaches (docs/methods/takd.md). Compare with the '
            'teacher directly.'
        )
    return '\n'.join(lines)


def _lines(number: int, one: Candidate, metric: float | None, unit: str) -> list[str]:
    entry, layers = one.published, one.layers
    gap = '' if metric is None else f' (+{one.metric - metric:.2f})'
    cost = _cost(layers.parameters, layers.macs) if layers else _cost(entry.parameters, entry.flops)
    lines = [f'{number}. {entry.name} ({entry.package}): {unit} {one.metric:.2f}{gap}; {cost}', f'   {entry.line}']
    for place, other in one.common:
        lines.append(f'     {_on(place, other):60} {_sides(place)} and {_sides(other)}')
    if layers and not one.common and not layers.problem:
        lines.append('     no layers of equal height and width in common')
    if one.too_far:
        lines.append(f'   an assistant is advised: {one.too_far}')
    return lines + [f'   note: {note}' for note in one.notes]


def _on(place: Place, other: Place) -> str:
    return f"on='{place.tap}'" if place.tap == other.tap else f"on=dict(student='{place.tap}', teacher='{other.tap}')"


def _sides(place: Place) -> str:
    return '×'.join(map(str, place.shape))


def _cost(parameters: int | None, macs: int | None) -> str:
    told = f'{_short(parameters)} parameters' if parameters else 'parameters unknown'
    return told + (f', {_short(macs)} multiply-adds' if macs else '')


def _short(number: int) -> str:
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if number >= size:
            return f'{number / size:.2f} {unit}'
    return str(number)


def _reasons(found: Search) -> list[str]:
    return [f'  {count:5} {reason}' for reason, count in found.refused.most_common()]


def _advice(found: Search) -> list[str]:
    """What to do where nothing fits."""
    student = found.student
    if not any(reason in found.refused for reason in ('of other classes', 'not better than the student')):
        return [
            f'No zoo has a model of {student.traits.data or "this data"}: train a larger network on it, and name that: '
            "teacher=dict(config='my_teacher.py', checkpoint='work_dirs/my_teacher/epoch_N.pth').",
            'Where classes differ a teacher can still be used by feature losses; its logits say nothing here.',
        ]
    if 'not better than the student' in found.refused and student.metric is not None:
        return [
            f'Those of the same data and classes reach no more than {student.metric:.2f}: a teacher that is no better '
            'can still help as one of several, or the student as its own (docs/methods/born_again.md).'
        ]
    return ['Models of the same data know other classes: train one on yours, or use feature losses.']
