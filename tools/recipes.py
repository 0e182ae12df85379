"""Reads configs/recipes.toml, and writes the tables of configs/README.md and docs/reproducing.md from it.

python tools/recipes.py            # are they what the table says?
python tools/recipes.py --write    # make it so
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
TABLE = CONFIGS / 'recipes.toml'
README = CONFIGS / 'README.md'
EPOCHS = {'last': 'last epoch', 'best': 'best epoch', 'unknown': 'epoch unknown'}

_METHOD = {'title', 'folder', 'defaults'}
_ENTRY = {
    'title', 'recipe', 'figures', 'epoch', 'losses', 'task_loss', 'optim_wrapper', 'combines', 'on_top_of', 'hook',
    'rounds', 'pairs', 'initial_epochs',
}  # fmt: skip
#: Numbers that a network may have of its own.
_OWN = ('batch', 'lr', 'weight_decay', 'epochs')
_PAIR = {'published', 'config', 'file', 'losses', 'lr_mult'}


@dataclass(frozen=True)
class Recipe:
    """One row: a method for a pair in a setting.

    Attributes:
        method: Its key in ``[methods]``; ``title`` is its name for readers.
        setting: Data and schedule, a key of ``[settings]``.
        pair: A key of ``[pairs.SETTING]``.
        path: The config below ``configs/``; None where a figure is published but no recipe is known.
        losses: What stands in ``model.losses``, without the ``loss_`` of the names; ``on`` lists each side's paths.
        task_loss: What stands in ``model.task_loss``; its weight is written even where it is 1.
        optim_wrapper: What ``optim_wrapper`` has beside what the network's alone has.
        base: The config that this is a hook on top of, if it is.
        hook: The arguments of that hook, ``KCDHook``.
        rounds: The epochs after which it condenses.
        initial_epochs: Of a first stage, before those of the setting.
        lr_mult: By loss, the factor on the learning rate of its learnable parts.
        differs: What of ``losses`` holds for this pair alone: words such as ``beta 8``.
        published: The figure, in %; ``figures`` says where it is from, and of which epoch it is.
        recipe: The source of the numbers.
    """

    method: str
    title: str
    setting: str
    pair: str
    teacher: str
    student: str
    path: str | None
    losses: dict[str, dict[str, Any]]
    task_loss: dict[str, Any]
    optim_wrapper: dict[str, Any]
    base: str | None
    hook: dict[str, Any]
    rounds: list[int]
    initial_epochs: int
    lr_mult: dict[str, float]
    differs: list[str]
    published: float | None
    recipe: str
    figures: str


class Table:
    """The recipes, and what they refer to.

    Args:
        data: What stands in ``recipes.toml``.

    Raises:
        ValueError: If a key, a pair, a network or a source is not known.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.sources: dict[str, str] = data['sources']
        self.settings: dict[str, dict[str, Any]] = data['settings']
        self.networks: dict[str, dict[str, Any]] = data['networks']
        self.pairs: dict[str, dict[str, dict[str, Any]]] = data['pairs']
        self.methods: dict[str, dict[str, Any]] = data['methods']
        self.tables: list[dict[str, Any]] = data['tables']
        self.schemes: list[str] = data['schemes']
        for setting, pairs in self.pairs.items():
            _known(setting, self.settings, f'[pairs.{setting}]', 'a setting')
            for name, pair in pairs.items():
                for side in ('teacher', 'student'):
                    _known(pair[side], self.networks, f'[pairs.{setting}] {name}.{side}', 'a network')
        self.recipes = [recipe for method in self.methods for recipe in self._of_method(method)]
        for table in self.tables:
            for setting in table['settings']:
                _known(setting, self.settings, f'[[tables]] {table["name"]}.settings', 'a setting')
            for method in table['methods']:
                _known(method, self.methods, f'[[tables]] {table["name"]}.methods', 'a method')

    def plain(self) -> Iterator[tuple[str, str, str]]:
        """Network, setting and path of each config of a network alone."""
        for network, entry in self.networks.items():
            for setting in entry.get('plain', []):
                yield network, setting, self.settings[setting]['plain'].format(network=network)

    def schedule(self, network: str, setting: str) -> dict[str, Any]:
        """A setting with the numbers that a network has of its own."""
        own = {key: value for key, value in self.networks[network].items() if key in _OWN}
        return self.settings[setting] | own

    def zoo(self, network: str, setting: str) -> str:
        """The config of another package, or of this one, whose published weights are a teacher; '' without any."""
        found: str = self.settings[setting].get('teachers', '')
        return found.format(network=network, family=self.networks[network].get('family', ''))

    def pair_title(self, recipe: Recipe) -> str:
        """``resnet56 → resnet20``."""
        student = self.networks[recipe.student].get('title', recipe.student)
        teacher = self.networks[recipe.teacher].get('title')
        return student if teacher is None and student != recipe.student else f'{teacher or recipe.teacher} → {student}'

    def _of_method(self, method: str) -> Iterator[Recipe]:
        entries = self.methods[method]
        for setting in entries.keys() - _METHOD:
            _known(setting, self.settings, f'[methods.{method}.{setting}]', 'a setting')
        for setting in self.settings:
            if setting not in entries:
                continue
            where = f'[methods.{method}.{setting}]'
            entry = _merge(entries.get('defaults', {}), entries[setting])
            _keys(entry, _ENTRY, where)
            for key in ('recipe', 'figures'):
                if key in entry or key == 'recipe':
                    _known(entry.get(key), self.sources, f'{where} {key}', 'one of [sources]')
            if 'epoch' in entry:
                _known(entry['epoch'], EPOCHS, f'{where} epoch', 'an epoch')
            for pair, own in entry.get('pairs', {}).items():
                _known(pair, self.pairs.get(setting, {}), f'{where} pairs.{pair}', f'one of [pairs.{setting}]')
                _keys(own, _PAIR, f'{where} pairs.{pair}')
                try:
                    yield self._recipe(method, setting, pair, entry, own)
                except KeyError as error:
                    raise ValueError(
                        f'{where} pairs.{pair} in recipes.toml, or what it builds on, lacks {error}'
                    ) from error

    def _recipe(self, method: str, setting: str, pair: str, entry: Mapping[str, Any], own: Mapping[str, Any]) -> Recipe:
        has_config, below = own.get('config', True), entry.get('on_top_of')
        figures = (entry.get('figures'), EPOCHS.get(entry.get('epoch', '')))
        return Recipe(
            method=method,
            title=entry.get('title', self.methods[method]['title']),
            setting=setting,
            pair=pair,
            teacher=self.pairs[setting][pair]['teacher'],
            student=self.pairs[setting][pair]['student'],
            path=self._file(method, setting, pair) if has_config else None,
            losses=self._losses(method, setting, pair) if has_config else {},
            task_loss={'loss_weight': 1, **entry.get('task_loss', {})},
            optim_wrapper=entry.get('optim_wrapper', {}),
            base=self._file(below, setting, pair) if below else None,
            hook=entry.get('hook', {}),
            rounds=entry.get('rounds', []),
            initial_epochs=entry.get('initial_epochs', 0),
            lr_mult=own.get('lr_mult', {}),
            differs=[*_words(own.get('losses', {}))],
            published=own.get('published'),
            recipe=entry['recipe'],
            figures=', '.join(filter(None, figures)) if 'published' in own else '',
        )

    def _file(self, method: str, setting: str, pair: str) -> str:
        folder = self.methods[method].get('folder', method)
        usual: str = self.settings[setting]['path'].format(folder=folder, method=method, pair=pair)
        file: str = self.methods[method][setting]['pairs'][pair].get('file', usual)
        return file

    def _losses(self, method: str, setting: str, pair: str) -> dict[str, dict[str, Any]]:
        entry = _merge(self.methods[method].get('defaults', {}), self.methods[method][setting])
        losses: dict[str, dict[str, Any]] = {}
        for other in entry.get('combines', []):
            losses |= self._losses(other, setting, pair)
        losses = _merge(losses, _merge(entry.get('losses', {}), entry['pairs'][pair].get('losses', {})))
        networks = self.pairs[setting][pair]
        for loss in losses.values():
            if not isinstance(loss['on'], dict) or 'teacher' not in loss['on']:
                loss['on'] = {'student': loss['on'], 'teacher': loss['on']}
            loss['on'] = {side: self._taps(networks[side], on) for side, on in loss['on'].items()}
        return losses

    def _taps(self, network: str, on: Any) -> list[str]:
        """Paths in a network, `$ends` and `$before_relu` written out."""
        entry, paths = self.networks[network], []
        for path in [on] if isinstance(on, str) else on:
            if path == '$ends':
                paths += [f'backbone.layer{number + 1}' for number in range(_fact(entry, 'stages', network))]
            elif path == '$before_relu':
                modules = _fact(entry, 'before_relu', network)
                paths += [f'backbone.layer{number}.{module}' for number, module in enumerate(modules, start=1)]
            else:
                paths.append(path)
        return paths


def read() -> Table:
    """The table of this checkout."""
    return Table(tomllib.loads(TABLE.read_text()))


def render(table: Table, name: str) -> str:
    """One of the README's tables, in Markdown."""
    (spec,) = (spec for spec in table.tables if spec['name'] == name)
    chosen = [r for m in spec['methods'] for r in table.recipes if r.method == m and r.setting in spec['settings']]
    return _markdown(_list(table, chosen, spec) if spec.get('list') else _grid(table, chosen, spec))


def update(text: str, table: Table) -> str:
    """The README's text, with the tables between its markers written anew.

    Raises:
        ValueError: If a table has no markers, or markers have no table.
    """
    marked = re.findall(r'<!-- table: (\w+) ', text)
    names = [spec['name'] for spec in table.tables]
    if sorted(marked) != sorted(names):
        raise ValueError(
            f'configs/README.md has markers for {marked}, configs/recipes.toml has the tables {names}; '
            'a table stands between <!-- table: NAME (from recipes.toml: python tools/recipes.py --write) --> and '
            '<!-- end -->'
        )
    return re.sub(
        r'(<!-- table: (\w+) [^\n]*-->\n).*?(<!-- end -->)',
        lambda match: f'{match[1]}\n{render(table, match[2])}\n{match[3]}',
        text,
        flags=re.DOTALL,
    )


def _grid(table: Table, recipes: list[Recipe], spec: Mapping[str, Any]) -> list[list[str]]:
    """A row for each method, a column for each pair."""
    named = len({table.settings[setting]['title'] for setting in spec['settings']}) > 1
    columns: dict[str, dict[str, float]] = {}
    cells: dict[str, dict[str, str]] = {}
    notes: dict[str, tuple[str, str]] = {}
    for setting in spec['settings']:  # columns in the order of [pairs]
        for pair in table.pairs[setting]:
            for recipe in (r for r in recipes if (r.setting, r.pair) == (setting, pair)):
                column = table.pair_title(recipe)
                column = f'{table.settings[setting]["title"]}: {column}' if named else column
                columns.setdefault(column, {}).update(table.pairs[setting][pair].get('published', {}))
                cells.setdefault(recipe.title, {})[column] = _cell(recipe)
                notes[recipe.title] = (recipe.recipe, recipe.figures or notes.get(recipe.title, ('', ''))[1])
    alone = [
        [side, *(f'{columns[c][side]:.2f}' if side in columns[c] else '' for c in columns), '', spec['alone']]
        for side in ('teacher', 'student')
        if 'alone' in spec
    ]
    titles = list(dict.fromkeys(recipe.title for recipe in recipes))
    rows = [[title, *(cells[title].get(c, '') for c in columns), *notes[title]] for title in titles]
    grid = [['', *columns, 'numbers from', 'figures from'], *alone, *rows]
    return grid if any(row[-1] for row in grid[1:]) else [row[:-1] for row in grid]


def _list(table: Table, recipes: list[Recipe], spec: Mapping[str, Any]) -> list[list[str]]:
    """A row for each pair of a setting, with all its recipes; for hooks with rounds."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for setting in spec['settings']:
        for recipe in (r for r in recipes if r.setting == setting):
            rounds = f'{", ".join(map(str, recipe.rounds))} of {table.settings[setting]["epochs"]}'
            key = (table.settings[setting]['title'], table.pair_title(recipe), rounds)
            rows.setdefault(key, []).append(f'[{recipe.title}]({recipe.path})')
    header = ['data', 'teacher → student', 'config', 'rounds after epochs']
    return [header, *([data, pair, ', '.join(configs), rounds] for (data, pair, rounds), configs in rows.items())]


def _cell(recipe: Recipe) -> str:
    """The figure, which leads to the config, and what holds for this pair alone."""
    figure = '' if recipe.published is None else f'{recipe.published:.2f}'
    if recipe.path is None:
        return f'{figure}, no config'
    return ', '.join([f'[{figure or "config"}]({recipe.path})', *recipe.differs])


def _words(losses: Mapping[str, Any]) -> Iterator[str]:
    """Numbers that differ from pair to pair, for readers."""
    for key, value in losses.items():
        if isinstance(value, Mapping):
            yield from _words(value)
        elif isinstance(value, int | float):
            yield f'{key.removeprefix("loss_")} {value:g}'


def _markdown(rows: list[list[str]]) -> str:
    lines = [f'| {" | ".join(row)} |'.replace('|  |', '| |').replace('|  |', '| |') for row in rows]
    return '\n'.join([lines[0], f'|{" --- |" * len(rows[0])}', *lines[1:]]) + '\n'


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings one over the other, as configs inherit; what reads taps is replaced as a whole."""
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        mergeable = key != 'on' and isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if mergeable else copy.deepcopy(value)
    return merged


def _known(name: Any, among: Mapping[str, Any], where: str, what: str) -> None:
    if name not in among:
        raise ValueError(f'{where} in recipes.toml: {name!r} given, expected {what}: {", ".join(among)}')


def _fact(entry: Mapping[str, Any], key: str, network: str) -> Any:
    if key not in entry:
        raise ValueError(f'[networks] {network} in recipes.toml has no `{key}`, which a method reads; write it down')
    return entry[key]


def _keys(entry: Mapping[str, Any], among: set[str], where: str) -> None:
    if unknown := entry.keys() - among:
        raise ValueError(f'{where} in recipes.toml has {sorted(unknown)}; known: {", ".join(sorted(among))}')


def main(argv: list[str] | None = None) -> int:
    """Compares both pages with the table, or writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--write', action='store_true', help='write the tables')
    args = parser.parse_args(argv)
    sys.path.insert(0, str(CONFIGS.parent))
    from tools import reproduced

    stale = []
    for page, made in ((README, update), (reproduced.PAGE, reproduced.update)):
        text = page.read_text()
        try:
            new = made(text, read())
        except ValueError as error:
            print(f'recipes: {error}', file=sys.stderr)
            return 1
        if new != text:
            stale.append('/'.join(page.parts[-2:]))
            if args.write:
                page.write_text(new)
    if stale and not args.write:
        print(f'{", ".join(stale)}: stale, run python tools/recipes.py --write', file=sys.stderr)
        return 1
    print('configs/README.md and docs/reproducing.md say what configs/recipes.toml does')
    return 0


if __name__ == '__main__':
    sys.exit(main())
