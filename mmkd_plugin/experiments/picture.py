"""The picture of a comparison: how far each method is above the plain student."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from .table import ABOVE, BELOW, Comparison, Row

_COLOURS = {ABOVE: '#4477aa', BELOW: '#bb5566'}  # which the colour-blind tell apart
_OTHER = '#888888'
_HALO = [withStroke(linewidth=2.5, foreground='white')]


def draw_gains(comparison: Comparison) -> Figure:
    """A dot for each method, sorted by its gain, with a bar of two standard errors to either side.

    A bar that does not reach the line at 0 is what the table calls above or below.
    """
    rows = sorted(comparison.methods, key=lambda row: (row.gain is not None, row.gain or 0.0))
    labels = [_label(row) for row in rows]
    width = 6 + 0.09 * max(map(len, labels), default=0)
    figure = Figure(figsize=(width, 1.8 + 0.32 * max(len(rows), 1)), layout='constrained')
    axes = figure.subplots()
    axes.axvline(0, color='black', linewidth=1)
    for y, row in enumerate(rows):
        _draw(axes, y, row)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(-0.7, max(len(rows), 1) - 0.3)
    axes.margins(x=0.08)
    axes.grid(axis='x', color='#dddddd')
    axes.set_axisbelow(True)
    for side in ('top', 'right', 'left'):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis='y', length=0)
    plain = comparison.plain
    reached = '' if plain.mean is None else f' ({plain.mean:.2f}{"" if plain.std is None else f" ± {plain.std:.2f}"})'
    figure.suptitle(comparison.title, fontsize='medium')
    figure.supxlabel(
        f'gain over {plain.name}{reached}; bars: 2 standard errors\n'
        'filled: above (blue) or below (red) by more\nhollow: within its error, or no error known',
        fontsize='small',
    )
    return figure


def _draw(axes: Axes, y: int, row: Row) -> None:
    if row.gain is None:
        axes.text(0, y, ' no result', va='center', color=_OTHER, fontsize='small')
        return
    colour = _COLOURS.get(row.verdict, _OTHER)
    axes.errorbar(
        row.gain, y, xerr=None if row.error is None else 2 * row.error, fmt='o', color=colour, capsize=3,
        markerfacecolor=colour if row.verdict in _COLOURS else 'white',
    )  # fmt: skip
    axes.annotate(
        f'{row.gain:+.2f}', (row.gain, y), (0, 5), textcoords='offset points', ha='center', fontsize='x-small',
        color=colour, path_effects=_HALO,
    )  # fmt: skip


def _label(row: Row) -> str:
    return row.name if len(row.values) == row.runs else f'{row.name} ({len(row.values)} of {row.runs} seeds)'
