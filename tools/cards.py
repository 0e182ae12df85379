"""Fills in what the cards of docs/methods/ say in figures: published ones from configs/recipes.toml, ours from results.

python tools/cards.py            # do the cards say what the table and the results do?
python tools/cards.py --write    # make them

A card has a block `<!-- figures: METHOD ... -->` up to `<!-- end figures -->`, with the methods' names in recipes.toml.
docs/methods/README.md lists the cards between `<!-- cards -->` and `<!-- end cards -->`. Our results are what
`tools/compare.py` left of its runs: docs/results/digits.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.recipes import Recipe, Table, read

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / 'docs' / 'methods'
RESULTS = ROOT / 'docs' / 'results' / 'digits.json'
BLOCK = re.compile(r'(<!-- figures: ([\w ]+) -->\n).*?(<!-- end figures -->)', re.DOTALL)
INDEX = re.compile(r'(<!-- cards -->\n).*?(<!-- end cards -->)', re.DOTALL)


def figures(table: Table, results: dict[str, Any], methods: Iterable[str]) -> str:
    """What a card says in figures.

    Raises:
        ValueError: If a method is not in the table.
    """
    published, configs, ours = [], [], []
    for method in methods:
        if method not in table.methods:
            raise ValueError(f'{method!r} is no method of configs/recipes.toml, which has {", ".join(table.methods)}')
        recipes = [recipe for recipe in table.recipes if recipe.method == method]
        for setting in dict.fromkeys(recipe.setting for recipe in recipes):
            here = [recipe for recipe in recipes if recipe.setting == setting]
            published += _published(table, [recipe for recipe in here if recipe.published is not None])
            configs += _configs(table, here)
        ours += [_ours(results, recipe) for recipe in recipes if recipe.setting == 'digits']
    return '\n'.join(
        [
            '**Published (top-1, %), not ours.**',
            *(published or ['No figure in the sources that we read.']),
            '',
            '**Ours.**',
            *(filter(None, ours) if any(ours) else ['Not run yet.']),
            '',
            f'**Configs.** {"; ".join(configs)}.',
        ]
    )


def _published(table: Table, recipes: list[Recipe]) -> list[str]:
    told = []
    for source in dict.fromkeys(recipe.figures for recipe in recipes):
        items = []
        for recipe in (recipe for recipe in recipes if recipe.figures == source):
            alone = table.pairs[recipe.setting][recipe.pair].get('published', {}).get('student')
            items.append(
                f'{table.pair_title(recipe)} {recipe.published:.2f}' + (f' (student alone {alone:.2f})' if alone else '')
            )
        title = table.settings[recipes[0].setting]['title']
        told.append(f'- {recipes[0].title} on {title}, {source}: {", ".join(items)}.')
    return told


def _configs(table: Table, recipes: list[Recipe]) -> list[str]:
    links = [f'[{table.pair_title(r)}](../../configs/{r.path})' for r in recipes if r.path]
    return [f'{recipes[0].title} on {table.settings[recipes[0].setting]["title"]}: {", ".join(links)}'] if links else []


def _ours(results: dict[str, Any], recipe: Recipe) -> str:
    row = results.get(f'configs/{recipe.path}')
    return '' if row is None else f'- {recipe.title} on digits, {row}.'


def read_results() -> dict[str, Any]:
    """Our results by config."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def main(argv: list[str] | None = None) -> int:
    """Compares, or writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--write', action='store_true', help='write the cards')
    args = parser.parse_args(argv)
    table, results = read(), read_results()
    for card in sorted(CARDS.glob('*.md')):
        text = card.read_text()
        new = BLOCK.sub(lambda m: f'{m[1]}\n{figures(table, results, m[2].split())}\n\n{m[3]}', text)
        if new == text:
            continue
        if not args.write:
            print(f'{card.relative_to(ROOT)} is stale: python tools/cards.py --write', file=sys.stderr)
            return 1
        card.write_text(new)
    print('the cards say what configs/recipes.toml and docs/results say')
    return 0


if __name__ == '__main__':
    sys.exit(main())
