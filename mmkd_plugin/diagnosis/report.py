"""The report of `tools/diagnose.py`."""

from dataclasses import asdict
from typing import Any

from .findings import found
from .measured import Measured


def plain(measured: Measured) -> dict[str, Any]:
    """All of it as JSON takes it."""
    findings = [
        {'name': finding.name, 'seen': text, 'means': finding.means, 'do': finding.do}
        for finding, text in found(measured)
    ]
    return {'findings': findings, **asdict(measured)}


def text(measured: Measured) -> str:
    """For people: findings last, where they are read."""
    lines: list[str] = []
    if measured.losses:
        student = f'from {measured.checkpoint}' if measured.checkpoint else 'untrained'
        lines.append(f'{measured.config}: {measured.steps} steps as in {measured.at}, student {student}')
        lines += [*_quality(measured), *_losses(measured), *_taps(measured), *_softness(measured), *_costs(measured)]
    if measured.untold:
        lines += ['', 'Not told:', *(f'  {told}' for told in measured.untold)]
    findings = found(measured)
    lines += ['', f'Findings: {len(findings)}' if findings else 'Findings: none. That is no promise of a gain.']
    for finding, seen in findings:
        lines += [f'  {finding.name}: {seen}', f'    {finding.means}', f'    -> {finding.do}']
    return '\n'.join(lines)


def _quality(m: Measured) -> list[str]:
    if not m.metric:
        return []
    lines = ['', f'{m.metric} on {m.images} validation images (%)']
    for name, metric in {**{n: t.metric for n, t in m.teachers.items()}, 'student': m.student}.items():
        lines.append(f'  {name:20} {"unknown" if metric is None else f"{metric:.2f}"}')
    return lines


def _losses(m: Measured) -> list[str]:
    lines = ['', 'Losses               value first -> last     weight  share of the gradient  cosine with the task']
    if m.task:
        told = f'{m.task_share["student"]:.1%}' if 'student' in m.task_share else ''
        lines.append(f'  {"task":18} {m.task[0]:10.4g} -> {m.task[-1]:<10.4g} {"":6} {told:>15}')
    for name, loss in m.losses.items():
        values = f'{loss.values[0]:10.4g} -> {loss.values[-1]:<10.4g}' if loss.values else f'{"off":>10}    {"":10}'
        weight = '' if loss.weight is None else f'{loss.weight:g}'
        share = '' if loss.share is None else f'{loss.share:.1%}'
        cosine = '' if loss.cosine is None else f'{loss.cosine:.2f}'
        begins = f'  from {loss.begins}' if loss.begins else ''
        lines.append(f'  {name:18} {values} {weight:>6} {share:>15} {cosine:>20}{begins}')
    return lines


def _taps(m: Measured) -> list[str]:
    lines = ['', 'Taps                                                     rms   dead  constant channels']
    for tap in m.taps:
        where = f'{tap.loss} {tap.side} {tap.tap} {"×".join(map(str, tap.shape))}'
        lines.append(f'  {where:52} {tap.rms:9.3g} {tap.dead:6.0%} {tap.constant:6.0%}')
    return lines if m.taps else []


def _softness(m: Measured) -> list[str]:
    lines = ['', 'Entropy of predictions, of the highest                 temperature   softened   at 1']
    for soft in m.softness:
        where = f'{soft.loss} {soft.side}'
        lines.append(f'  {where:52} {soft.temperature:9.3g} {soft.softened:10.4f} {soft.plain:7.4f}')
    return lines if m.softness else []


def _costs(m: Measured) -> list[str]:
    lines: list[str] = []
    if whole := sum(m.seconds.values()):
        parts = ', '.join(f'{part} {1000 * own:.1f} ({own / whole:.0%})' for part, own in m.seconds.items())
        lines += ['', f'Time of a step: {1000 * whole:.1f} ms: {parts}']
    kept = [f'{name} {size / 2**20:.2f}' for name, size in m.memory.items() if size]
    return [*lines, f'Memory (MiB): {", ".join(kept)}'] if kept else lines
