"""`tools/find_teacher.py`: from metafiles to the line that is pasted."""

import ast
import json

import pytest
from mmengine.config import Config

from mmkd_plugin.files.configs import config_path, read_config
from mmkd_plugin.teachers import build_teacher
from mmkd_plugin.zoo import candidates, find_teacher, installed, metafiles, plain, published, text
from mmkd_plugin.zoo.candidates import RATIO, search
from mmkd_plugin.zoo.layers import look_at
from mmkd_plugin.zoo.traits import Traits
from tests.end_to_end.helpers import ROOT, forked, parse

pytestmark = pytest.mark.openmmlab
TEACHER = 'mmkd_plugin::digits/resnet_teacher.py'


def only(monkeypatch, *entries):
    """A zoo of nothing else, of one package."""
    chosen = [entry for entry in published('mmpretrain') if entry.name in entries]
    assert {entry.name for entry in chosen} == set(entries)
    monkeypatch.setattr(candidates, 'installed', lambda: ['mmpretrain'])
    monkeypatch.setattr(candidates, 'published', lambda package: chosen)
    return chosen


def teacher_of(line):
    """What a config would have."""
    call = ast.parse(f'dict({line})', mode='eval').body
    return eval(compile(ast.Expression(call), 'line', 'eval'), {'dict': dict})['teacher']


def test_all_metafiles_are_read():
    assert installed() == list(metafiles.PACKAGES)
    counts = {package: len(published(package)) for package in installed()}
    assert counts['mmkd_plugin'] == 4
    assert min(counts['mmpretrain'], counts['mmdet']) > 400
    entry = next(e for e in published('mmpretrain') if e.name == 'resnet18_8xb32_in1k')
    assert entry.metrics == {'Image Classification': ('ImageNet-1k', 69.9)}
    assert (entry.parameters, entry.spec) == (11690000, 'mmpretrain::resnet/resnet18_8xb32_in1k.py')
    assert entry.path.is_file()
    assert str(entry.weights).startswith('https://')


@pytest.mark.parametrize('config', ['kd_resnet.py', 'digits/resnet_student.py'])
def test_our_own_teacher_of_digits(config, monkeypatch):
    monkeypatch.setattr(candidates, 'installed', lambda: ['mmkd_plugin'])
    found = find_teacher(config_path(config), None, None, 5)
    (one,) = found.candidates
    assert (found.student.metric, one.metric) == (86.52, 99.1)
    assert one.layers
    assert (found.student.layers.parameters, one.layers.parameters) == (44550, 701178)
    assert one.published.line == f"teacher=dict(config='{TEACHER}')"
    assert [(s.tap, t.tap) for s, t in one.common] == [(p, p) for p in (
        'head.fc', 'backbone.layer1', 'backbone.layer2', 'backbone.layer3', 'backbone.layer4', 'neck')]  # fmt: skip
    assert one.common[1][0].shape == (4, 28, 28)
    assert one.common[1][1].shape == (16, 28, 28)
    assert not one.too_far
    assert not one.notes
    told = text(found, 5)
    assert one.published.line in told
    assert "on='backbone.layer4'" in told


def test_a_detector(monkeypatch):
    monkeypatch.setattr(candidates, 'installed', lambda: ['mmkd_plugin'])
    found = find_teacher(config_path('dkd_faster_rcnn.py'), None, None, 5)
    (one,) = found.candidates
    assert {s.tap for s, _ in one.common} >= {'roi_head.bbox_head.fc_cls', 'backbone.layer4', 'neck[0]', 'neck[3]'}
    assert 'points better' in one.too_far
    assert 'rule of thumb' in text(found, 5)


def test_what_our_metafiles_say_is_so():
    for entry in published('mmkd_plugin'):
        config = Config.fromfile(str(entry.path))
        from mmkd_plugin.teachers.network_spec import model_of

        assert look_at(model_of(config, entry.spec)).parameters == entry.parameters
        if entry.weights:
            assert entry.weights == read_config(entry.spec)[1]


def test_imagenet_candidates_and_their_lines(monkeypatch):
    names = 'resnet18_8xb32_in1k', 'resnet34_8xb32_in1k', 'resnet50_8xb32_in1k', 'vgg11bn_8xb32_in1k'
    chosen = only(monkeypatch, *names)
    found = find_teacher('mmpretrain::resnet/resnet18_8xb32_in1k.py', None, None, 5)
    assert found.student.metric == 69.9
    assert [one.published.name for one in found.candidates] == ['resnet50_8xb32_in1k', 'resnet34_8xb32_in1k',
                                                                'vgg11bn_8xb32_in1k']  # fmt: skip
    assert found.refused == {'not better than the student': 1}
    for one in found.candidates:
        assert one.layers
        spec = build_teacher(teacher_of(one.published.line))
        assert spec.checkpoint == one.published.weights
        assert sum(p.numel() for p in spec.model.parameters()) == one.layers.parameters
    resnet50 = found.candidates[0]
    assert ('backbone.layer4', 'backbone.layer4') in [(s.tap, t.tap) for s, t in resnet50.common]
    assert resnet50.layers
    assert resnet50.layers.macs == pytest.approx(4.09e9, rel=0.02)
    assert next((s.tap, t.tap) for s, t in found.candidates[2].common) == ('head.fc', 'backbone.classifier')
    assert len(chosen) == 4


def test_far_ones_and_other_image_sizes_come_last(monkeypatch):
    far, sized = 'swin-base_16xb64_in1k', 'vit-base-p16_in21k-pre_3rdparty_in1k-384px'
    only(monkeypatch, 'resnet34_8xb32_in1k', 'resnet50_8xb32_in1k', 'mobilenet-v3-large_8xb128_in1k', far, sized)
    found = search('mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py', 72.0)
    order = {one.published.name: one for one in found.candidates}
    assert list(order)[:3] == ['resnet50_8xb32_in1k', 'resnet34_8xb32_in1k', 'mobilenet-v3-large_8xb128_in1k']
    assert f'more than {RATIO:g}' in order[far].too_far
    assert order[sized].too_far
    assert "its metric is of 384x384 images, and it would be shown the student's, 224x224" in order[sized].notes
    assert not order['resnet50_8xb32_in1k'].notes
    assert not order['resnet50_8xb32_in1k'].too_far


def test_why_nothing_fits(tmp_path):
    config = tmp_path / 'own.py'
    config.write_text(
        "_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'\nmodel = dict(head=dict(num_classes=7))\n"
        "train_dataloader = dict(dataset=dict(type='CustomDataset'))\n"
    )
    found = find_teacher(str(config), None, None, 3)
    assert not found.candidates
    assert found.refused['of other data'] > 300
    told = text(found, 3)
    assert 'none fits' in told
    assert 'No zoo has a model of CustomDataset' in told
    assert plain(found, 3)['candidates'] == []


def test_other_classes_of_the_same_data(tmp_path):
    config = tmp_path / 'own.py'
    config.write_text(
        "_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'\nmodel = dict(head=dict(num_classes=7))\n"
    )
    found = search(str(config))
    assert not found.candidates
    assert found.refused['of other classes'] >= 4
    assert 'know other classes' in text(found, 3)


def test_better_than_everything():
    found = search('mmpretrain::resnet/resnet18_8xb16_cifar10.py', 99.9)
    assert not found.candidates
    assert 'reach no more than 99.90' in text(found, 3)


def test_traits_of_wrapped_data():
    config = Config(dict(
        model=dict(type='RetinaNet', backbone=dict(type='mmdet.ResNet'), bbox_head=dict(num_classes=3)),
        train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(
            type='ConcatDataset', datasets=[dict(type='CocoDataset', metainfo=dict(classes=('a', 'b', 'c')))]))),
    ))  # fmt: skip
    traits = Traits.of(config)
    assert (traits.task, traits.data, traits.names, traits.classes, traits.backbone) == (
        'Object Detection', 'CocoDataset', ('a', 'b', 'c'), 3, 'ResNet',
    )  # fmt: skip


def test_command(tmp_path):
    done = forked(ROOT / 'tools/find_teacher.py', config_path('kd_resnet.py'), '--json', check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    told = json.loads(done.stdout[done.stdout.index('{\n') :])
    assert told['candidates'][0]['config'] == TEACHER
    assert told['candidates'][0]['gap'] == pytest.approx(12.58)
    failed = forked(ROOT / 'tools/find_teacher.py', tmp_path / 'no.py', check=False)
    assert failed.returncode == 1
    assert 'does not exist' in failed.stdout


@pytest.mark.parametrize('argv', [[], ['c.py', '--limit', '0'], ['c.py', '--better-than', '700']])
def test_wrong_arguments(argv):
    with pytest.raises(SystemExit):
        parse('find_teacher.py', *argv)


def test_models_of_other_kinds_are_refused(tmp_path):
    config = tmp_path / 'own.py'
    config.write_text("model = dict(type='MoCo', backbone=dict(type='ResNet'), neck=dict(type='X'))\n")
    with pytest.raises(ValueError, match='expected a classifier'):
        search(str(config))
