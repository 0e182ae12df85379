"""`configs/recipes.toml` is read strictly, and the README's tables are made from it."""

import copy
import re
from typing import Any

import pytest

from tools import recipes
from tools.recipes import README, Table, read, render, update


def changed(**methods):
    """What stands in the file, with some methods replaced."""
    data = copy.deepcopy(vars(read()))
    data.pop('recipes')
    data['methods'] |= methods
    return data


def test_the_readme_is_what_the_table_says():
    assert update(README.read_text(), read()) == README.read_text(), 'mend: python tools/recipes.py --write'


def test_the_readme_leads_to_every_published_recipe():
    links = set(re.findall(r'\]\(([\w./-]+\.py)\)', README.read_text()))
    recipes = {recipe.path for recipe in read().recipes if recipe.path}
    assert {path for path in recipes if path.startswith(('classification/', 'detection/'))} <= links
    assert links <= recipes


def test_every_published_figure_stands_in_the_readme():
    text = README.read_text()
    for recipe in read().recipes:
        assert recipe.published is None or f'{recipe.published:.2f}' in text, recipe


def test_a_method_is_a_few_lines():
    """Defaults of a method, and for each pair what differs."""
    new = {
        'title': 'New',
        'defaults': {'losses': {'new': {'type': 'NewLoss', 'on': '$ends', 'loss_weight': 3000}}},
        'cifar100': {
            'recipe': 'RepDistiller',
            'figures': 'RepDistiller',
            'epoch': 'last',
            'pairs': {
                'resnet56_resnet20': {'published': 69.67},
                'vgg13_vgg8': {'published': 72.68, 'losses': {'new': {'loss_weight': 1}}},
            },
        },
    }
    data = changed(new=new)
    data['tables'][0]['methods'].append('new')
    table = Table(data)
    first, second = (recipe for recipe in table.recipes if recipe.method == 'new')
    assert first.path == 'classification/new/new_resnet56_resnet20_cifar100.py'
    three = [f'backbone.layer{i}' for i in (1, 2, 3)]
    assert first.losses['new'] == {'type': 'NewLoss', 'on': {'student': three, 'teacher': three}, 'loss_weight': 3000}
    assert second.losses['new']['loss_weight'] == 1
    assert len(second.losses['new']['on']['teacher']) == 4
    row = next(line for line in render(table, 'cifar100').splitlines() if line.startswith('| New'))
    assert row == (
        '| New | [69.67](classification/new/new_resnet56_resnet20_cifar100.py) | | | '
        '[72.68](classification/new/new_vgg13_vgg8_cifar100.py), weight 1 | RepDistiller | RepDistiller, last epoch |'
    )


ENTRY: dict[str, Any] = {
    'recipe': 'ours',
    'losses': {'x': {'type': 'XLoss', 'on': 'head.fc'}},
    'pairs': {'vgg13_vgg8': {}},
}
MISTAKES = {
    'setting': ({'cifar10': ENTRY}, r"\[methods.x.cifar10\].*'cifar10' given, expected a setting: cifar100, "),
    'pair': ({'cifar100': {**ENTRY, 'pairs': {'vgg13_vgg9': {}}}}, r"'vgg13_vgg9' given, expected one of \[pairs"),
    'key': ({'cifar100': {**ENTRY, 'publishd': 1}}, r"\[methods.x.cifar100\].*'publishd'.*known: combines, "),
    'key of a pair': ({'cifar100': {**ENTRY, 'pairs': {'vgg13_vgg8': {'beta': 1}}}}, r"'beta'.*known: config, file"),
    'source': ({'cifar100': {**ENTRY, 'recipe': 'a blog'}}, r"'a blog' given, expected one of \[sources\]: ours, "),
    'no source': ({'cifar100': {'losses': {}, 'pairs': {}}}, r'recipe.*None given, expected one of \[sources\]'),
    'epoch': ({'cifar100': {**ENTRY, 'epoch': 'first'}}, r"'first' given, expected an epoch: last, best"),
    'no taps': ({'cifar100': {**ENTRY, 'losses': {'x': {'type': 'XLoss'}}}}, r"pairs.vgg13_vgg8.*lacks 'on'"),
    'nothing below': ({'cifar100': {**ENTRY, 'on_top_of': 'fitnets'}}, r"or what it builds on, lacks 'fitnets'"),
    'fact': (
        {
            '180k_coco': {
                **ENTRY,
                'losses': {'x': {'type': 'XLoss', 'on': '$before_relu'}},
                'pairs': {'faster-rcnn_r101_r18_fpn': {}},
            }
        },
        r'\[networks\] r18_fpn.*no `before_relu`',
    ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_are_named(mistake):
    method, says = MISTAKES[mistake]
    with pytest.raises(ValueError, match=says):
        Table(changed(x={'title': 'X', **method}))


def test_tables_and_markers_belong_together():
    with pytest.raises(ValueError, match=r"markers for \['nothing'\].*tables \['cifar100'"):
        update('<!-- table: nothing (...) -->\n<!-- end -->\n', read())


def test_the_command(tmp_path, monkeypatch, capsys):
    readme = tmp_path / 'README.md'
    readme.write_text(README.read_text().replace('72.34', '99.99'))
    monkeypatch.setattr(recipes, 'README', readme)
    assert recipes.main([]) == 1
    assert 'stale, run python tools/recipes.py --write' in capsys.readouterr().err
    assert recipes.main(['--write']) == 0
    assert readme.read_text() == README.read_text()
    assert recipes.main([]) == 0
