#!/usr/bin/env python
"""Fill in what the cards of docs/methods/ say in figures: published ones from configs/recipes.toml, ours from results.

    python tools/cards.py                         # do the cards say what the table and the results do?
    python tools/cards.py --write                 # make them
    python tools/cards.py --results values.json   # take over what tools/compare.py left on digits, and make them
    python tools/cards.py --results values.json --on digit_scenes

A card has a block `<!-- figures: METHOD ... -->` up to `<!-- end figures -->`, with the methods' names in recipes.toml;
docs/methods/README.md has a table of our results in `<!-- results -->` up to `<!-- end results -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.recipes import Recipe, Table, read  # noqa: E402

CARDS = ROOT / 'docs' / 'methods'
RESULTS = ROOT / 'docs' / 'results'
# names of the files in there: the data, for digit_scenes with the pair of detectors
ON = ('digits', 'digit_scenes', 'digit_scenes_dense')
BLOCK = re.compile(r'(<!-- figures: ([\w ]+) -->\n).*?(<!-- end figures -->)', re.DOTALL)
INDEX = re.compile(r'(<!-- results -->\n).*?(<!-- end results -->)', re.DOTALL)


class Results:
    """What our runs gave on one data set, by config.

    Args:
        data: ``{'plain': config, 'runs': {config: {'values': [...], 'beside': n}}}``.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.plain: str = data.get('plain', '')
        self.runs: dict[str, dict[str, Any]] = data.get('runs', {})

    def values(self, config: str) -> list[float]:
        """Of each seed, in %; empty if it was not run."""
        return list(self.runs.get(config, {}).get('values', []))

    def told(self, config: str) -> tuple[str, str, str]:
        """Mean and deviation, gain with its error, and what that is worth; in words.

        The criterion is that of tools/compare.py.
        """
        from mmkd_plugin.experiments.table import standard_error, verdict

        values, plain = self.values(config), self.values(self.plain)
        gain, error = statistics.mean(values) - statistics.mean(plain), standard_error(values, plain)
        spread = f' ± {statistics.stdev(values):.2f}' if len(values) > 1 else ''
        gained = f'{gain:+.2f}' + ('' if error is None else f' ± {error:.2f}')
        return f'{statistics.mean(values):.2f}{spread}', gained, verdict(gain, error)


def figures(table: Table, results: dict[str, Results], methods: Sequence[str]) -> str:
    """What a card says in figures.

    Args:
        table: The recipes.
        results: Ours, by what they were run on.
        methods: As `recipes.toml` names them.

    Raises:
        ValueError: If a method is not in the table.
    """
    published: list[str] = []
    configs: list[str] = []
    ours: list[str] = []
    scopes: set[str] = set()
    for method in methods:
        if method not in table.methods:
            raise ValueError(f'{method!r} is no method of configs/recipes.toml, which has {", ".join(table.methods)}')
        recipes = [recipe for recipe in table.recipes if recipe.method == method]
        scopes |= {table.settings[recipe.setting]['scope'] for recipe in recipes}
        for setting in dict.fromkeys(recipe.setting for recipe in recipes):
            here = [recipe for recipe in recipes if recipe.setting == setting]
            published += _published(table, [recipe for recipe in here if recipe.published is not None])
            configs += _configs(table, here)
        ours += [text for on in results for recipe in recipes if (text := _ours(on, results[on], recipe))]
    metric = 'box AP' if scopes == {'mmdet'} else 'top-1'
    lines = [
        f'**Published** ({metric} in %), not ours:', '',
        *(published or ['- no figure in the sources that we read']), '',
        f'**Ours** ({metric} in %, last epoch, weights of the config):', '', *(ours or ['- not run yet']), '',
        '**Configs:**', '', *configs,
    ]  # fmt: skip
    return '\n'.join(lines)


def _published(table: Table, recipes: list[Recipe]) -> list[str]:
    told = []
    for source in dict.fromkeys(recipe.figures for recipe in recipes):
        items = []
        for recipe in (recipe for recipe in recipes if recipe.figures == source):
            alone = table.pairs[recipe.setting][recipe.pair].get('published', {}).get('student')
            against = f' (student alone {alone:.2f})' if alone else ''
            items.append(f'{table.pair_title(recipe)} {recipe.published:.2f}{against}')
        title = table.settings[recipes[0].setting]['title']
        told.append(f'- {recipes[0].title} on {title}, {source}: {", ".join(items)}')
    return told


def _configs(table: Table, recipes: list[Recipe]) -> list[str]:
    links = [f'[{table.pair_title(r)}](../../configs/{r.path})' for r in recipes if r.path]
    title = table.settings[recipes[0].setting]['title']
    return [f'- {recipes[0].title} on {title}: {", ".join(links)}'] if links else []


def _ours(on: str, results: Results, recipe: Recipe) -> str:
    config = f'configs/{recipe.path}'
    if not results.values(config):
        return ''
    value, gain, verdict = results.told(config)
    data, metric = on.replace('_dense', ' (GFL)'), 'mAP ' if on.startswith('digit_scenes') else ''
    return f'- {recipe.title} on {data}, {len(results.values(config))} seeds: {metric}{value}, {gain} ({verdict})'


def index(table: Table, results: Results, cards: dict[str, str]) -> str:
    """The table of our results, the largest gain first.

    Args:
        table: The recipes.
        results: Ours.
        cards: By method, the file of its card.
    """
    by_config = {f'configs/{recipe.path}': recipe for recipe in table.recipes}
    plain = results.values(results.plain)
    rows = [
        '| method | top-1 (%) | gain over the plain student | verdict | trained beside |',
        '| --- | --- | --- | --- | --- |',
        f'| plain student | {statistics.mean(plain):.2f} ± {statistics.stdev(plain):.2f} | | | |',
    ]
    found = [config for config in results.runs if config in by_config and config != results.plain]
    for config in sorted(found, key=lambda config: -statistics.mean(results.values(config))):
        recipe = by_config[config]
        card = cards.get(recipe.method)
        name = f'[{recipe.title}]({card})' if card else recipe.title
        beside = results.runs[config].get('beside')
        rows.append(f'| {name} | {" | ".join(results.told(config))} | {"" if not beside else f"{beside:,}"} |')
    return '\n'.join(rows)


def take_over(values: dict[str, Any]) -> dict[str, Any]:
    """What `values.json` of tools/compare.py says, without what belongs to the machine it ran on.

    Raises:
        ValueError: If it is something else, or a run has no result.
    """
    if not isinstance(values, dict) or not {'metric', 'plain', 'runs', 'scale'} <= values.keys():
        raise ValueError('expected the values.json that tools/compare.py leaves in its --work-dir')
    runs: dict[str, Any] = {}
    for name, run in values['runs'].items():
        results = [seed['result'] for seed in run['seeds'].values()]
        if None in results:
            raise ValueError(f'{name} has {results.count(None)} seeds without a result: let tools/compare.py finish')
        metrics = [values['scale'] * result['metrics'][values['metric']] for result in results]
        runs[run['config']] = {'values': metrics, 'beside': results[0]['parameters']['beside']}
    return {'metric': values['metric'], 'plain': values['runs'][values['plain']]['config'], 'runs': runs}


def write_all(write: bool) -> list[str]:
    """The cards that say something else than the table and the results; made anew if ``write``."""
    from mmkd_plugin.files.atomic import write_text

    table = read()
    files = {on: RESULTS / f'{on}.json' for on in ON}
    results = {on: Results(json.loads(file.read_text())) for on, file in files.items() if file.is_file()}
    texts = {card: card.read_text() for card in sorted(CARDS.glob('*.md'))}
    owners = {
        method: card.name
        for card, text in texts.items()
        for match in BLOCK.finditer(text)
        for method in match[2].split()
    }
    stale = []
    for card, text in texts.items():
        new = BLOCK.sub(lambda m: f'{m[1]}\n{figures(table, results, m[2].split())}\n\n{m[3]}', text)
        if 'digits' in results:
            new = INDEX.sub(lambda m: f'{m[1]}\n{index(table, results["digits"], owners)}\n\n{m[2]}', new)
        if new != text:
            stale.append(str(card.relative_to(ROOT)))
            if write:
                write_text(card, new)
    return stale


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--write', action='store_true', help='make the cards')
    parser.add_argument('--results', type=Path, metavar='FILE', help='values.json of a comparison')
    parser.add_argument('--on', choices=ON, default='digits', help='what it ran on (default: %(default)s)')
    args = parser.parse_args(argv)
    if args.results:
        try:
            data = take_over(json.loads(args.results.read_text()))
        except (ValueError, FileNotFoundError) as error:
            raise SystemExit(f'cards: {error}') from error
        from mmkd_plugin.files.atomic import write_text

        RESULTS.mkdir(exist_ok=True)
        write_text(RESULTS / f'{args.on}.json', json.dumps(data, indent=1) + '\n')
    stale = write_all(write=args.write or args.results is not None)
    if stale and not (args.write or args.results):
        print(f'{", ".join(stale)}: stale, run python tools/cards.py --write', file=sys.stderr)
        return 1
    print('the cards say what configs/recipes.toml and docs/results/ say')
    return 0


if __name__ == '__main__':
    sys.exit(main())
