"""Code and commands in README and docs are tried: scripts run, configs are built, commands are read by their tools."""

import contextlib
import io
import re

import cv2
import numpy as np
import pytest

from tests.documented.blocks import BLOCKS, NO_CODE, PAGES, ROOT, Block, blocks_of
from tests.documented.commands import check_command, lines_of
from tests.documented.configs import build, write_config
from tests.end_to_end.helpers import options
from tests.processes import forked

TRIED = [block for block in BLOCKS if 'not run' not in block.marks]
COMMANDS = [block for block in TRIED if block.kind in ('bash', 'console', 'sh', 'inline')]
CONFIGS = [block for block in TRIED if block.is_config]
SCRIPTS = sorted({block.page for block in TRIED if block.kind == 'python' and not block.is_config})
#: Quick ones, which really run: (the command as it stands in a page, what it must say).
QUICK = {
    'python tools/list_modules.py configs/dkd_resnet.py': 'backbone.layer4',
    'python tools/recipes.py': 'say what configs/recipes.toml does',
}


def test_every_fence_says_what_it_is():
    known = ('python', 'bash', 'console', 'sh', 'inline', *NO_CODE)
    assert [f'{block}: {block.kind!r}' for block in BLOCKS if block.kind not in known and block.kind[:1] != '{'] == []


def test_marks_give_a_reason():
    assert [str(block) for block in BLOCKS if not all(block.marks.values())] == []


@pytest.mark.parametrize('page', sorted({block.page for block in COMMANDS}))
def test_commands_are_read_by_their_tools(page):
    wrong = []
    for block in COMMANDS:
        for words in lines_of(block.code) if block.page == page else []:
            try:
                check_command(words)
            except ValueError as error:
                wrong.append(f'{block}: {error}')
    assert wrong == []


@pytest.mark.parametrize('page', sorted({block.page for block in CONFIGS}))
def test_configs_are_built(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # teachers are named from there
    for block in [block for block in CONFIGS if block.page == page]:
        path = write_config(block, tmp_path)
        try:
            build(path)
        except Exception as error:
            raise AssertionError(f'{block} does not build: {error}') from error


@pytest.mark.parametrize('page', SCRIPTS)
def test_scripts_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in [b for b in TRIED if b.page == page and b.kind == 'python' and not b.is_config]:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block.code, str(block), 'exec'), namespace)


@pytest.mark.parametrize('command', QUICK)
def test_quick_commands_run(command):
    assert any(command in re.sub(r'\s+', ' ', block.code) for block in COMMANDS), f'no page has {command}: take another'
    done = forked(*command.split()[1:])
    assert QUICK[command] in done.stdout


def test_the_walk_through_your_own_data(tmp_path):
    """The three configs of docs/own_data.md, one after the other, on 12 small images."""
    for block in blocks_of(ROOT / 'docs' / 'own_data.md'):
        if 'file' in block.marks:
            (tmp_path / block.marks['file']).write_text(block.code)
    for split in ('train', 'val'):
        for number in range(6):
            path = tmp_path / 'my_data' / split / ('cat', 'dog')[number % 2] / f'{number}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((40, 40, 3), 40 * number, np.uint8))
    small = {
        'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': 3, 'val_dataloader.batch_size': 3,
        'train_dataloader.dataset.pipeline.1.scale': 32, 'val_dataloader.dataset.pipeline.1.scale': 32,
        'val_dataloader.dataset.pipeline.2.crop_size': 32, 'log_level': 'INFO', 'load_from': None,
        **{f'{loader}_dataloader.{key}': value for loader in ('train', 'val', 'test')
           for key, value in (('num_workers', 0), ('persistent_workers', False))},
    }  # fmt: skip
    teacher = {'model.teacher.checkpoint': 'work_dirs/my_teacher/epoch_1.pth', 'custom_hooks.0.at_least': None}
    for name in ('my_small', 'my_teacher', 'my_small_distilled'):
        given = small | (teacher if 'distilled' in name else {})
        done = forked(ROOT / 'tools' / 'train.py', f'{name}.py', *options(given), cwd=tmp_path)
    assert (tmp_path / 'work_dirs' / 'my_small_distilled' / 'epoch_1.pth').is_file()
    assert 'teacher/accuracy/top1' in done.stdout


@pytest.mark.parametrize('page', [str(path.relative_to(ROOT)) for path in PAGES])
def test_links_lead_somewhere(page):
    text = re.sub(r'^ *```.*?^ *```', '', (ROOT / page).read_text(), flags=re.M | re.S)
    links = re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]*`', '', text))
    wrong = [
        link
        for link in links
        if not re.match(r'https?:|mailto:|#', link) and not ((ROOT / page).parent / link.split('#')[0]).exists()
    ]
    assert wrong == []


def test_every_page_is_in_the_contents():
    """Sphinx warns of one that is not; this says so without it."""
    contents = (ROOT / 'docs' / 'index.md').read_text()
    there = re.findall(r'^(?:[\w ]+ <)?(\w[\w/]*)(\*?)>?$', contents, flags=re.M)
    for path in [*(ROOT / 'docs').glob('*.md'), *(ROOT / 'docs' / 'results').glob('*.md')]:
        name = str(path.relative_to(ROOT / 'docs').with_suffix(''))
        assert name == 'index' or any(name == page or (star and name.startswith(page)) for page, star in there), name


@pytest.mark.parametrize(
    ('command', 'says'),
    [
        ('python tools/train.py configs/dkd_resnet.py --no-such', 'unrecognized arguments: --no-such'),
        ('python tools/train.py configs/no_such.py', 'configs/no_such.py is not there'),
        ('python tools/no_such.py', 'tools/no_such.py is not there'),
        ('python tools/draw.py', 'the following arguments are required'),
        ('python tools/train.py configs/kd_resnet.py --cfg-options model.nothing.loss=1', 'has no nothing'),
        ('python -m mmkd_plugin.no_such', 'there is no module'),
        (
            'tools/slurm_train.sh PART job configs/kd_resnet.py work_dirs/x --no-such',
            'unrecognized arguments: --no-such',
        ),
        ('make no-such', 'make knows no no-such'),
        ('mmkd no-such', 'mmkd knows no no-such'),
        ('mmkd train configs/kd_resnet.py --no-such', 'unrecognized arguments: --no-such'),
        ('rm -rf /', "'rm' is no command that can be checked"),
    ],
)
def test_a_wrong_command_is_found(command, says):
    (words,) = lines_of(command)
    with pytest.raises(ValueError, match=says):
        check_command(words)


def test_a_wrong_config_is_found(tmp_path):
    code = "losses = dict(loss_kd=dict(type='KDLoss', on='head.no_such'))"
    block = Block('page.md', 1, 'python', code, {})
    assert block.is_config
    with pytest.raises(ValueError, match='no_such'):
        build(write_config(block, tmp_path))


def test_what_is_no_config_is_a_script():
    assert not Block('page.md', 1, 'python', 'from mmkd_plugin import distill\ny = distill(1)', {}).is_config
    assert not Block('page.md', 1, 'python', 'class A: pass', {}).is_config


def test_pages_are_read(tmp_path, monkeypatch):
    text = (
        'See `python tools/x.py --a`.\n\n<!-- onto: b.py -->\n<!-- not run: why -->\n```python\nx = 1\n```\n\n'
        '- a\n  ```bash\n  make demo  # it\n  ```\n\n    python tools/y.py \\\n        --b\n'
    )
    (tmp_path / 'page.md').write_text(text)
    monkeypatch.setattr('tests.documented.blocks.ROOT', tmp_path)
    inline, fence, indented, last = blocks_of(tmp_path / 'page.md')
    assert (inline.kind, inline.code) == ('inline', 'python tools/x.py --a')
    assert (fence.kind, fence.code, fence.marks) == ('python', 'x = 1\n', {'onto': 'b.py', 'not run': 'why'})
    assert lines_of(indented.code) == [['make', 'demo']]
    assert lines_of(last.code) == [['python', 'tools/y.py', '--b']]
