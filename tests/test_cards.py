"""The cards of docs/methods/: none is missing, and they say what recipes and results say."""

import re
from typing import Any

import pytest

from mmkd_plugin import losses
from mmkd_plugin.registration import BASES
from tools import cards
from tools.recipes import read

HEADINGS = ['Compares', 'Formula', 'When to use it', 'Where it taps', 'Cost', 'Weight', 'Deviations']
TEXTS = {path.name: path.read_text() for path in cards.CARDS.glob('*.md')}
CARDS = {name: text for name, text in TEXTS.items() if name != 'README.md'}


def test_they_are_up_to_date():
    assert cards.write_all(write=False) == []


def test_every_loss_has_a_card():
    classes = [item for name in losses.__all__ if isinstance(item := getattr(losses, name), type)]
    heads = ' '.join(text.split('\n\n')[1] for text in CARDS.values())
    assert [kind.__name__ for kind in classes if kind not in BASES and f'`{kind.__name__}`' not in heads] == []


def test_every_method_has_its_figures_somewhere():
    shown = [method for text in CARDS.values() for match in cards.BLOCK.finditer(text) for method in match[2].split()]
    assert len(shown) == len(set(shown))
    losses_only = {name for name, entry in read().methods.items() if entry.get('folder') != 'kcd'}
    assert set(shown) == losses_only


@pytest.mark.parametrize('name', CARDS)
def test_a_card_says_what_all_say(name):
    text = CARDS[name]
    assert [heading for heading in HEADINGS if f'**{heading}.**' not in text] == []
    assert f']({name})' in TEXTS['README.md']
    for link in re.findall(r'\]\(([^)#]+)\)', text):
        assert link.startswith('http') or (cards.CARDS / link).exists(), link


def test_results_are_taken_over_without_the_machine():
    def run(config, *values):
        results = [{'result': {'metrics': {'top1': value}, 'parameters': {'beside': 7}}} for value in values]
        return {'config': config, 'seeds': dict(enumerate(results))}

    values: dict[str, Any] = {
        'metric': 'top1',
        'scale': 100,
        'plain': 'p',
        'runs': {'p': run('p.py', 0.5, 0.7), 'k': run('k.py', 0.8)},
    }
    taken = cards.take_over(values)
    assert taken['plain'] == 'p.py'
    assert taken['runs']['k.py'] == {'values': [80.0], 'beside': 7}
    assert cards.Results(taken).told('k.py') == ('80.00', '+20.00', 'no error known')
    values['runs']['k']['seeds'][0]['result'] = None
    with pytest.raises(ValueError, match='k has 1 seeds without a result'):
        cards.take_over(values)


def test_another_file_is_refused(tmp_path):
    for text in ('[]', '{"runs": {}}', 'no json'):
        (tmp_path / 'values.json').write_text(text)
        with pytest.raises(SystemExit, match='cards: '):
            cards.main(['--results', str(tmp_path / 'values.json')])


def test_a_method_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'no_such' is no method"):
        cards.figures(read(), {}, ['no_such'])
