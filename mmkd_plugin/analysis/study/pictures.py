"""Pictures of a study: what is discarded of images, concepts, and how concepts come and go in training."""

import io
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from torch import Tensor

from ...files.atomic import write_bytes
from .measures import Measured
from .samples import Sample

_BLUE, _RED, _YELLOW, _GREY = '#4477aa', '#bb5566', '#ddaa33', '#888888'  # which the colour-blind tell apart
_COLOURS = {'baseline': _BLUE, 'student': _RED}
_MOST = 6  # images that are drawn


def draw(
    out_dir: Path, samples: Sequence[Sample], chosen: Tensor, tap: str, measured: Sequence[Measured], config: Config
) -> dict[str, str]:
    """Draw one tap, into files and for the backends of the config's visualizer.

    Args:
        out_dir: Where to.
        samples: All images.
        chosen: Which of them were compared (N,).
        tap: Where.
        measured: Baselines, students, teachers, in this order.
        config: Its visualizer's backends get the pictures, but for LocalVisBackend, which would write the same files.

    Returns:
        Names of files, each with what it shows.
    """
    slug = re.sub(r'\W+', '-', tap).strip('-')
    shown = [sample for sample, good in zip(samples, chosen.tolist(), strict=True) if good]
    first = list({m.run.role: m for m in reversed(measured)}.values())[::-1]
    figures: dict[str, tuple[Figure, str, int]] = {}
    several = [m for m in measured if m.path is not None]
    if several:
        figures[f'speed_{slug}'] = (_speed(several, tap), 'Concepts in the foreground over the path of the weights', 0)
        figures[f'changes_{slug}'] = (
            _changes(several, tap), 'Concepts in the foreground that were learned, kept and forgotten', 0,
        )  # fmt: skip
    for place in sorted({len(shown) * i // min(_MOST, len(shown)) for i in range(min(_MOST, len(shown)))}):
        sample = shown[place]
        text = f'Image {sample.index}: what {tap} discards, and its concepts'
        figures[f'entropy_{slug}_{sample.index}'] = (_maps(sample, place, first), text, sample.index)
    recorder = _recorder(config, out_dir)
    names = {}
    for name, (figure, text, step) in figures.items():
        data = io.BytesIO()
        figure.savefig(data, format='png', dpi=130)
        write_bytes(out_dir / f'{name}.png', data.getvalue())
        if recorder is not None:
            recorder.add_image(name, _pixels(figure), step=step)
        names[f'{name}.png'] = text
    if recorder is not None:
        recorder.close()
    return names


def _pixels(figure: Figure) -> np.ndarray:
    """RGB (H, W, 3)."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _recorder(config: Config, out_dir: Path) -> Any:
    """The config's visualizer with the backends that do not write files of pictures; None if there are none."""
    cfg = dict(config.get('visualizer') or {})
    backends: list[Mapping[str, Any]] = [
        {'save_dir': str(out_dir), **backend}
        for backend in cfg.get('vis_backends') or []
        if getattr(backend['type'], '__name__', backend['type']) != 'LocalVisBackend'
    ]
    if not backends:
        return None
    return VISUALIZERS.build({**cfg, 'name': uuid.uuid4().hex, 'vis_backends': backends})


def _maps(sample: Sample, place: int, measured: Sequence[Measured]) -> Figure:
    """An image: entropies above, concepts below, a column for each network."""
    size = 2.3
    figure = Figure(figsize=(size * (len(measured) + 1) + 0.8, 2 * size + 0.7), layout='constrained')
    axes = figure.subplots(2, len(measured) + 1, squeeze=False)
    height, width = sample.shown.shape[:2]
    # maps lie over the padded image, whose top left the image is
    extent = (-0.5, sample.padded[1] - 0.5, sample.padded[0] - 0.5, -0.5)
    _image(axes[0][0], sample, f'image {sample.index}')
    _image(axes[1][0], sample, 'foreground')
    axes[1][0].imshow(_painted(sample.foreground.numpy(), _YELLOW), extent=extent)
    last = torch.stack([m.entropy[-1, place] for m in measured]).numpy()
    low, high = np.nanmin(last), np.nanmax(last)
    for column, (one, entropy) in enumerate(zip(measured, last, strict=True), 1):
        drawn = axes[0][column].imshow(entropy, 'viridis', vmin=low, vmax=high, extent=extent)
        axes[0][column].set_title(one.run.role, fontsize='medium')
        _image(axes[1][column], sample)
        cells = one.cells[-1, place]
        axes[1][column].imshow(_painted((cells & sample.foreground).numpy(), _BLUE), extent=extent)
        axes[1][column].imshow(_painted((cells & sample.background).numpy(), _RED), extent=extent)
        inside, outside = int(one.foreground[-1, place]), int(one.background[-1, place])
        axes[1][column].set_title(f'{inside} in the foreground, {outside} not', fontsize='small')
        for row in (0, 1):
            axes[row][column].set_xlim(-0.5, width - 0.5)
            axes[row][column].set_ylim(height - 0.5, -0.5)
    for one in axes.flat:
        one.set_xticks([])
        one.set_yticks([])
    bar = figure.colorbar(drawn, ax=axes[0], fraction=0.05)
    bar.set_label('entropy (nats)\ndark: kept', fontsize='small')
    return figure


def _image(axes: Axes, sample: Sample, title: str = '') -> None:
    axes.imshow(sample.shown if title.startswith('image') else sample.shown // 2 + 110)
    if title:
        axes.set_title(title, fontsize='medium')


def _painted(cells: np.ndarray, colour: str) -> np.ndarray:
    """Cells as an image (h, w, 4), clear where there are none."""
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.concatenate([np.broadcast_to(rgb, (*cells.shape, 3)), 0.75 * cells[..., None]], -1)


def _speed(measured: Sequence[Measured], tap: str) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout='constrained')
    axes = figure.subplots()
    told = set()
    for one in measured:
        role = one.run.role
        label = None if role in told else role
        told.add(role)
        counts = one.foreground.double().mean(1)
        colour = _COLOURS[role]
        axes.plot(np.asarray(one.path), counts.numpy(), '.-', color=colour, alpha=0.85, linewidth=1.3, label=label)
        if one.speed is not None:
            axes.axvline(one.speed.mean, color=_COLOURS[role], linestyle=':', linewidth=1)
    axes.set_xlabel('path of the weights, in norms of the first weights\ndotted: D_mean')
    axes.set_ylabel('concepts in the foreground, mean of images')
    axes.set_title(f'{tap}: a line for each run', fontsize='medium')
    axes.set_ylim(bottom=0)
    axes.grid(color='#dddddd')
    axes.legend(frameon=False)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    return figure


def _changes(measured: Sequence[Measured], tap: str) -> Figure:
    """Bars above the line for what is there, below it for what was forgotten."""
    roles = list(dict.fromkeys(m.run.role for m in measured))
    figure = Figure(figsize=(3.6 * len(roles) + 0.6, 3.8), layout='constrained')
    axes = figure.subplots(1, len(roles), sharey=True, squeeze=False)[0]
    for one, role in zip(axes, roles, strict=True):
        runs = [m for m in measured if m.run.role == role]
        learned, kept, forgotten = (
            torch.stack([getattr(m.changes, name) for m in runs]).double().mean((0, 2)).numpy()
            for name in ('learned', 'kept', 'forgotten')
        )
        places = np.arange(len(kept))
        one.bar(places, kept, color=_BLUE, label='kept')
        one.bar(places, learned, bottom=kept, color=_YELLOW, label='learned')
        one.bar(places, -forgotten, color=_RED, label='forgotten')
        one.axhline(0, color='black', linewidth=0.8)
        one.set_xticks(places, [str(c.number) for c in runs[0].run.checkpoints], fontsize='small')
        one.set_xlabel('checkpoint')
        one.set_title(f'{role}, mean of {len(runs)} run(s)', fontsize='medium')
        for side in ('top', 'right'):
            one.spines[side].set_visible(False)
    axes[0].set_ylabel('concepts in the foreground\nof an image')
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc='outside lower center', ncols=3)
    figure.suptitle(f'{tap}, against the checkpoint before', fontsize='medium')
    return figure
