"""What was published, what came out here, and the config of it: the tables of docs/reproducing.md.

`python tools/recipes.py --write` makes them, from configs/recipes.toml and the results in docs/results/.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.recipes import Recipe, Table

DOCS = Path(__file__).resolve().parents[1] / 'docs'
PAGE = DOCS / 'reproducing.md'
BLOCK = re.compile(r'(<!-- published [^\n]*-->\n).*?(<!-- end published -->)', re.DOTALL)
HEADER = ['method', 'teacher → student', 'student alone', 'published', 'ours', 'config', 'figure from']


def measured() -> dict[str, list[float]]:
    """By config, what our runs gave with each seed, in %: from every file of docs/results/ that has it."""
    values: dict[str, list[float]] = {}
    for path in sorted((DOCS / 'results').glob('*.json')):
        data = json.loads(path.read_text())
        if isinstance(data, dict):
            values |= {config: run['values'] for config, run in data.get('runs', {}).items()}
    return values


def render(table: Table, ours: Mapping[str, Sequence[float]]) -> str:
    """A table for each data set with published figures, a row for each of these.

    Args:
        table: The recipes.
        ours: By config, such as ``configs/kd_resnet.py``, the metric of each seed in %.
    """
    titles = dict.fromkeys(setting['title'] for setting in table.settings.values())
    parts = []
    for title in titles:
        recipes = [
            recipe
            for recipe in table.recipes
            if table.settings[recipe.setting]['title'] == title and recipe.published is not None
        ]
        if recipes:
            metric = 'box AP' if table.settings[recipes[0].setting]['scope'] == 'mmdet' else 'top-1'
            rows = [HEADER, ['---'] * len(HEADER), *(_row(table, recipe, ours) for recipe in recipes)]
            parts += [f'## {title}: {metric} in %', '\n'.join(f'| {" | ".join(row)} |' for row in rows)]
    return '\n\n'.join(parts)


def _row(table: Table, recipe: Recipe, ours: Mapping[str, Sequence[float]]) -> list[str]:
    alone = table.pairs[recipe.setting][recipe.pair].get('published', {}).get('student')
    values = ours.get(f'configs/{recipe.path}', [])
    spread = f' ± {statistics.stdev(values):.2f}' if len(values) > 1 else ''
    return [
        recipe.title,
        table.pair_title(recipe),
        f'{alone:.2f}' if alone else '',
        f'{recipe.published:.2f}',
        f'{statistics.mean(values):.2f}{spread}' if values else '',
        f'[config](../configs/{recipe.path})' if recipe.path else 'none',
        recipe.figures,
    ]


def update(text: str, table: Table) -> str:
    """The page's text with its tables written anew."""
    return BLOCK.sub(lambda match: f'{match[1]}\n{render(table, measured())}\n\n{match[2]}', text)
