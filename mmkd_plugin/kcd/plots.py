"""Pictures of what KCD did: values in each round, samples that move between sets, hardest and easiest images."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Curve
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

#: The sets of a table: what became of their samples, and colours that the colour-blind tell apart.
SETS = {'high': ('distilled as it is', '#4477aa'), 'low': ('mixed', '#ddaa33'), 'dropped': ('left out', '#bb5566')}
_COLOURS = [colour for _, colour in SETS.values()]
_HEADER = 'sample,value,count,set,path'
_MOST = 10  # rounds in a picture
_HALO = [withStroke(linewidth=2.5, foreground='white')]


class Round(NamedTuple):
    """A table of ``KCDHook``, by sample: values (NaN: never seen), places in :data:`SETS`, and paths of images."""

    number: int
    values: NDArray[np.float64]
    sets: NDArray[np.int8]
    paths: Sequence[str]


def read_rounds(folder: str | Path) -> list[Round]:
    """All tables in ``work_dir/kcd``, in order; of paths, which may be millions, only those of the last.

    Raises:
        FileNotFoundError: If there are none, or one in between is missing.
        ValueError: If one is damaged, or they are not of the same data.
    """
    found = (re.fullmatch(r'round_([1-9]\d*)\.csv', path.name) for path in Path(folder).glob('round_*.csv'))
    numbers = sorted(int(name[1]) for name in found if name)
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise FileNotFoundError(
            f"'{folder}' has {f'the tables of rounds {numbers}' if numbers else 'no tables'}, expected round_1.csv, "
            'round_2.csv and so on, none missing: give the work folder of a run with KCDHook, after its first round'
        )
    rounds: list[Round] = []
    for number in numbers:
        rounds[-1:] = [one._replace(paths=()) for one in rounds[-1:]]
        rounds.append(_read(Path(folder) / f'round_{number}.csv', number))
        if len(rounds[-1].sets) != len(rounds[0].sets):
            raise ValueError(
                f'{folder}/round_{number}.csv has {len(rounds[-1].sets)} samples, round_1.csv {len(rounds[0].sets)}, '
                'expected tables of one run. One is cut short, or of an earlier run in the same folder: move it away'
            )
    return rounds


def _read(file: Path, number: int) -> Round:
    columns = [('sample', int), ('value', float), ('count', int), ('set', np.int8), ('path', object)]
    convert: dict[int | str, Any] = {1: lambda text: float(text or 'nan'), 3: list(SETS).index}
    try:
        with file.open(newline='', encoding='utf-8') as stream:
            header = stream.readline().strip()
            if header != _HEADER:
                raise ValueError(f'its first line is {header!r}')
            table = np.loadtxt(stream, columns, None, ',', convert, quotechar='"', ndmin=1)
        if not len(table) or (table['sample'] != np.arange(len(table))).any() or np.isinf(table['value']).any():
            raise ValueError('samples are missing or not in order, or a value is infinite')
    except ValueError as error:
        raise ValueError(
            f'{file} is no table of a round: {error}; expected the columns {_HEADER} and one line for each sample from '
            f'0 on, its value a number or empty, its set one of {", ".join(SETS)}. Restore it, or resume the run from '
            'a checkpoint before this round, which writes it again'
        ) from error
    return Round(number, table['value'].copy(), table['set'].copy(), table['path'].tolist())


def count_flows(rounds: Sequence[Round]) -> NDArray[np.int64]:
    """How many samples each round moves from one set to another: (rounds, 3, 3), sets in the order of `SETS`.

    Before the first round all are ``high``.
    """
    sets = [np.zeros_like(rounds[0].sets), *(one.sets for one in rounds)]
    return np.stack([np.bincount(a * 3 + b, minlength=9).reshape(3, 3) for a, b in pairwise(sets)])


def _shown(rounds: Sequence[Round]) -> list[Round]:
    """Not more rounds than one can read; first and last are among them."""
    places = np.linspace(0, len(rounds) - 1, min(len(rounds), _MOST)).round().astype(int)
    return [rounds[place] for place in places]


def _figure(title: str, width: float, height: float) -> Figure:
    figure = Figure((width, height), layout='constrained')
    patches = [Patch(color=colour, label=f'{name}: {what}') for name, (what, colour) in SETS.items()]
    figure.legend(handles=patches, title=title, title_fontsize=13, loc='outside upper center', ncols=3, frameon=False)
    return figure


def draw_values(rounds: Sequence[Round]) -> Figure:
    """Histograms of the values, one for each round, its sets stacked; samples never seen are only counted."""
    shown, size = _shown(rounds), len(rounds[0].sets)
    figure = _figure(f'Values of {size:,} samples', 9, 1.6 + max(1.1 * len(shown), 2.5))
    values = [one.values[~np.isnan(one.values)] for one in shown]
    # without the few that are far out, for which all others would be squeezed
    ends = np.quantile(np.concatenate(values), (0.001, 0.999)) if any(map(len, values)) else (0, 1)
    edges = np.histogram_bin_edges(ends, int(np.clip(2 * math.sqrt(size), 10, 80)))
    all_axes = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    for axes, one, there in zip(all_axes, shown, values, strict=True):
        # what is dropped at the bottom: it lies at the low values
        sets = one.sets[~np.isnan(one.values)]
        parts = [there[sets == place].clip(*ends) for place in (2, 1, 0)]
        axes.hist(parts, edges, stacked=True, color=_COLOURS[::-1], histtype='stepfilled')
        axes.set_ylabel(f'round {one.number}\nsamples')
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_formatter('{x:,.0f}')
        axes.spines[['top', 'right']].set_visible(False)
        if unseen := size - len(there):
            axes.text(1, 1, f'without a value: {unseen:,}', transform=axes.transAxes, ha='right', va='top')
    all_axes[-1].set_xlabel('value: mean so far (entropy: nats); dropped samples keep theirs; end bars hold all beyond')
    return figure


def draw_flow(rounds: Sequence[Round]) -> Figure:
    """Bars of the sets before and after each round, and between them bands of the samples that go from set to set."""
    shown, size = _shown(rounds), len(rounds[0].sets)
    flows = count_flows(shown)
    sizes = np.concatenate([flows[:1].sum(2), flows.sum(1)])  # (columns, sets)
    tops = sizes[:, ::-1].cumsum(1)[:, ::-1] + 0.06 * size * np.array([2, 1, 0])
    figure = _figure('Samples in each set; bands: colour of the set they leave', max(8, 1.5 + 1.6 * len(sizes)), 6.5)
    axes = figure.subplots()
    for place, colour in enumerate(_COLOURS):
        axes.bar(range(len(sizes)), sizes[:, place], 0.42, tops[:, place] - sizes[:, place], color=colour)
    for (column, place), count in np.ndenumerate(sizes):
        if count:
            _count(axes, column, tops[column, place] - count / 2, count, ha='center', weight='bold', size=9)
    labels = ['before']
    for column, (one, flow) in enumerate(zip(shown, flows, strict=True)):
        _bands(axes, column, flow, tops[column : column + 2].copy(), 0.03 * size)
        dropped, returned = flow[:2, 2].sum(), flow[2, :2].sum()
        labels.append(f'round {one.number}\n{dropped:,} newly dropped\n{returned:,} returned')
    axes.set_xticks(range(len(sizes)), labels)
    axes.set(yticks=[], xlim=(-0.4, len(shown) + 0.4), ylim=(0, 1.13 * size), ylabel=f'{size:,} samples')
    axes.set_xlabel('sets after each round; newly dropped and returned since the bar before')
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _bands(axes: Axes, column: int, flow: NDArray[np.int64], ends: NDArray[np.float64], least: float) -> None:
    """The bands right of a column; ends are the tops of the bars at both sides, ``least`` has room for its number."""
    left, middle, right = column + 0.21, column + 0.5, column + 0.79
    codes = [Curve.MOVETO, *3 * [Curve.CURVE4], Curve.LINETO, *3 * [Curve.CURVE4]]
    for source, target in np.argwhere(flow):
        count, a, b = flow[source, target], ends[0, source], ends[1, target]
        upper = [(left, a), (middle, a), (middle, b), (right, b)]
        lower = [(x, y - count) for x, y in reversed(upper)]
        axes.add_patch(PathPatch(Curve(upper + lower, codes), color=_COLOURS[source], alpha=0.45, linewidth=0))
        if count >= least and source != target:
            _count(axes, left + 0.02, a - count / 2, count, ha='left', size=8)
        ends[0, source] -= count
        ends[1, target] -= count


def _count(axes: Axes, x: float, y: float, count: int, **style: Any) -> None:
    axes.text(x, y, f'{count:,}', va='center', path_effects=_HALO, zorder=4, **style)


def extremes(last: Round, count: int) -> tuple[list[int], list[int]]:
    """The samples of highest and those of lowest value, most extreme first; none that was never seen."""
    order = np.argsort(last.values, kind='stable')[: np.count_nonzero(~np.isnan(last.values))]
    return order[::-1][:count].tolist(), order[:count].tolist()


def draw_samples(
    last: Round, hardest: Sequence[int], easiest: Sequence[int], images: Mapping[int, NDArray[np.uint8]]
) -> Figure:
    """A contact sheet: images (H, W, 3) by sample, captions with number, value and set, frames in the set's colour."""
    columns = min(8, len(hardest))
    lines = -(-len(hardest) // columns)
    figure = _figure(f'Samples after round {last.number}', max(6, 1.5 * columns), 0.8 + 2 * (0.4 + 1.9 * lines))
    sheets = {'hardest: highest values': hardest, 'easiest: lowest values': easiest}
    for part, (title, samples) in zip(figure.subfigures(2, squeeze=False)[:, 0], sheets.items(), strict=True):
        part.suptitle(title, fontweight='bold')
        places = part.subplots(lines, columns, squeeze=False).ravel()
        for axes in places[len(samples) :]:
            axes.set_visible(False)
        for axes, sample in zip(places, samples, strict=False):
            image, colour = images[sample], _COLOURS[last.sets[sample]]
            step = max(1, max(image.shape) // 400)  # the figure holds all images at once
            axes.imshow(image[::step, ::step])
            axes.set(xticks=[], yticks=[], anchor='S')
            axes.set_xlabel(f'sample {sample}\n{last.values[sample]:.4g}, {list(SETS)[last.sets[sample]]}', fontsize=9)
            axes.spines[:].set(color=colour, linewidth=3)
    return figure
