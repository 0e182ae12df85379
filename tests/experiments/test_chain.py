"""Which checkpoints the links of a chain find, without training."""

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
from mmengine.config import DictAction

from mmkd_plugin.experiments import forge, link_table
from mmkd_plugin.files.configs import config_path
from tests.experiments.helpers import result

GRAPH = [config_path(f'digits/view_teacher_{view}.py') for view in ('rotated', 'inverted', 'covered')]
GRAPH += [config_path('digits/graph_resnet.py')]


@pytest.fixture
def configs(tmp_path):
    """Writes configs by name, and gives their paths."""

    def write(**texts):
        for name, text in texts.items():
            (tmp_path / f'{name}.py').write_text(text)
        return [str(tmp_path / f'{name}.py') for name in texts]

    return write


def test_teachers_are_looked_for_where_the_chain_has_its_folders(tmp_path):
    links = forge(GRAPH, 3, tmp_path, {'train_cfg.max_epochs': 2})
    *teachers, student = links
    assert [link.run.folder for link in links] == [tmp_path / Path(path).stem for path in GRAPH]
    assert {link.run.seed for link in links} == {3}
    assert [link.options for link in teachers] == [[], [], []]
    assert student.needs == [link.run for link in teachers]
    assert student.options == [
        f'model.teachers.{view}.checkpoint={tmp_path}/view_teacher_{view}/epoch_2.pth'
        for view in ('rotated', 'inverted', 'covered')
    ]
    assert student.run.entry.config.model.teachers.rotated.checkpoint == f'{tmp_path}/view_teacher_rotated/epoch_2.pth'


def test_the_usual_folder_needs_nothing_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (*_, student) = forge(GRAPH)
    named = student.run.entry.config.model.teachers.rotated.checkpoint
    assert named == 'work_dirs/view_teacher_rotated/epoch_15.pth'
    assert student.options == []
    assert len(student.needs) == 3


def test_only_the_last_checkpoint_of_a_config_is_the_last_one_under_options(configs, tmp_path):
    paths = configs(
        first='train_cfg = dict(max_epochs=40)',
        second='train_cfg = dict(max_iters=900)',
        third="a = [dict(x='./work_dirs/first/epoch_20.pth', y='work_dirs/first/epoch_40.pth')]\n"
        "b = 'work_dirs/second/iter_900.pth'\nc = 'work_dirs/other/epoch_40.pth'\nwork_dir = 'work_dirs/third/x'",
    )
    third = forge(paths, root=tmp_path / 'w', options={'train_cfg.max_epochs': 3})[-1]
    assert third.options == [
        f'a.0.x={tmp_path}/w/first/epoch_20.pth',
        f'a.0.y={tmp_path}/w/first/epoch_3.pth',
        f'b={tmp_path}/w/second/iter_900.pth',
    ]
    assert third.run.entry.config.a[0].y == f'{tmp_path}/w/first/epoch_3.pth'
    assert third.run.entry.config.c == 'work_dirs/other/epoch_40.pth'
    assert [need.entry.name for need in third.needs] == ['first', 'second']


def test_a_route_of_checkpoints_follows_as_one(tmp_path):
    """Whatever the length of the run that leaves them, and through `--cfg-options`."""
    paths = [config_path(f'digits/{name}.py') for name in ('resnet_teacher_route', 'rco_resnet')]
    student = forge(paths, root=tmp_path / 'w', options={'train_cfg.max_epochs': 8})[-1]
    named = f'{tmp_path}/w/resnet_teacher_route/epoch_{{}}.pth'
    assert student.options == [f'model.teacher.checkpoint={named}']
    assert student.run.entry.config.model.teacher.checkpoint == named
    assert [need.entry.name for need in student.needs] == ['resnet_teacher_route']
    given = Namespace()
    DictAction(['--cfg-options'], 'values')(ArgumentParser(), given, student.options)
    assert given.values == {'model.teacher.checkpoint': named}


def test_mistakes(configs, tmp_path):
    paths = configs(a="x = 'work_dirs/b/epoch_1.pth'", b='train_cfg = dict(max_epochs=1)')
    with pytest.raises(ValueError, match=r"x='work_dirs/b/epoch_1.pth', which is left by 'b', which comes later"):
        forge(paths, root=tmp_path / 'w')
    with pytest.raises(ValueError, match=r"holds ' ', which --cfg-options cannot pass on"):
        forge([paths[1], paths[0]], root=tmp_path / 'w w')
    (of_list,) = configs(d="x = ['work_dirs/b/epoch_1.pth']")
    with pytest.raises(ValueError, match=r'x.0 should be .*w/b/epoch_1.pth.* cannot change a word in a list'):
        forge([paths[1], of_list], root=tmp_path / 'w')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/b.py').write_text('')
    with pytest.raises(ValueError, match="two configs are called 'b'"):
        forge([paths[1], str(tmp_path / 'other/b.py')], root=tmp_path / 'w')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        forge([str(tmp_path / 'none.py')], root=tmp_path / 'w')
    (tmp_path / 'w/b').mkdir(parents=True)
    (tmp_path / 'w/b/epoch_1.pth').touch()
    with pytest.raises(ValueError, match='is there, and no run of a comparison or chain'):
        forge([paths[1]], root=tmp_path / 'w')


def test_the_table_has_links_in_their_order_whatever_became_of_them(configs, tmp_path):
    paths = configs(a='', b="x = 'work_dirs/a/y.pth'", c='', d='')
    links = forge(paths, root=tmp_path / 'w')
    with pytest.raises(ValueError, match='no run is finished yet'):
        link_table(links)
    links[0].run.finish(result(61.25))
    links[1].run.finish(result(70.5))
    links[2].run.fail('ValueError: no')
    rows = [re.split(r' *\| *', line)[1:-1] for line in link_table(links).splitlines()[2:]]
    assert rows == [
        ['a', '61.25', '100', '7', ''],
        ['b', '70.50', '100', '7', 'a'],
        ['c', 'failed', '', '', ''],
        ['d', '', '', '', ''],
    ]
