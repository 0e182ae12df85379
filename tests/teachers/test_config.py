import copy

import pytest
import torch
from torch import nn

from mmkd_plugin.teachers import build_teacher, plain_student
from tests.conftest import student_cfg


def test_shipped_teacher_by_name():
    spec = build_teacher('mmkd_plugin::digits/resnet_teacher.py')
    before = copy.deepcopy(spec.model.state_dict())
    spec.load_weights()
    assert not torch.equal(before['head.fc.weight'], spec.model.head.fc.weight)
    assert spec.model.data_preprocessor.mean.item() == pytest.approx(33.3)


def test_model_dict_with_checkpoint(tmp_path, teacher):
    path = tmp_path / 't.pth'
    torch.save({'state_dict': teacher.state_dict()}, path)
    spec = build_teacher({'model': student_cfg(), 'checkpoint': str(path)})
    spec.load_weights()
    assert torch.equal(spec.model.head.fc.weight, teacher.head.fc.weight)


@pytest.mark.openmmlab
def test_zoo_name_takes_the_published_weights():
    spec = build_teacher('mmpretrain::resnet/resnet18_8xb32_in1k.py')
    assert '://' in str(spec.checkpoint)
    assert spec.model.head.num_classes == 1000


@pytest.mark.openmmlab
def test_teacher_of_another_package():
    spec = build_teacher({'config': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'untrained': True})
    assert type(spec.model).__name__ == 'FasterRCNN'


def test_distilled_config_as_teacher_is_its_plain_student():
    spec = build_teacher({'config': 'mmkd_plugin::dkd_resnet.py', 'untrained': True})
    assert type(spec.model).__name__ == 'ImageClassifier'


def test_built_module_is_taken_as_trained(teacher):
    assert build_teacher(teacher).checkpoint is None


def test_building_draws_no_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_teacher({'model': student_cfg(), 'untrained': True})
    assert torch.equal(torch.rand(1), expected)


def test_untrained_must_be_said():
    with pytest.raises(ValueError, match=r'teacher has no weights.*untrained=True'):
        build_teacher({'model': student_cfg()})
    with pytest.raises(ValueError, match='has no weights'):
        build_teacher('mmkd_plugin::digits/resnet_student.py')
    assert build_teacher({'model': student_cfg(), 'untrained': True}).checkpoint is None
    with pytest.raises(ValueError, match='drop one'):
        build_teacher({'model': student_cfg(), 'untrained': True, 'checkpoint': 'x.pth'})


@pytest.mark.parametrize(
    ('spec', 'error', 'match'),
    [
        ({'config': 'x.py', 'chekpoint': 'a'}, ValueError, r"unknown keys \['chekpoint'\] \(did you mean checkpoint"),
        ({'checkpoint': 'a'}, ValueError, "either 'config' or 'model'"),
        ({'config': 'a', 'model': {}, 'checkpoint': 'a'}, ValueError, "either 'config' or 'model'"),
        (3, TypeError, 'expected one of'),
        ({'config': 3, 'checkpoint': 'a'}, TypeError, 'config=3, expected a path'),
        ({'model': 'ResNet', 'checkpoint': 'a'}, TypeError, "model='ResNet', expected dict"),
        ({'model': {'typ': 'ResNet'}, 'checkpoint': 'a'}, TypeError, 'expected dict'),
        ('::x', ModuleNotFoundError, "config '::x' needs the package"),
        ('mmpretrain::resnet/resnet999_in1k.py', FileNotFoundError, 'mmpretrain has no config .*near names: resnet/'),
        ('nowhere/teacher.py', FileNotFoundError, r'nowhere/teacher.py.*does not exist'),
        ('mmkd_plugin::digits/teacher.py', FileNotFoundError, 'resnet_teacher.py'),
    ],
)
def test_bad_specs(spec, error, match):
    with pytest.raises(error, match=match):
        build_teacher(spec)


def test_config_without_model(tmp_path):
    (tmp_path / 'c.py').write_text('a = 1\n')
    with pytest.raises(ValueError, match='has no `model`'):
        build_teacher({'config': str(tmp_path / 'c.py'), 'checkpoint': 'x'})


def test_model_dict_without_preprocessing_gets_the_students(student):
    cfg = student_cfg()
    del cfg['data_preprocessor']
    spec = build_teacher({'model': cfg, 'untrained': True}, 'teacher', student)
    assert spec.model.data_preprocessor.mean.item() == pytest.approx(33.3)
    assert spec.model.data_preprocessor is not student.data_preprocessor


def test_plain_student_drops_what_distilled_adds():
    cfg = {'type': 'Distilled', 'student': 'ImageClassifier', 'teacher': 't', 'losses': {}, 'backbone': {'type': 'R'}}
    assert plain_student(cfg) == {'type': 'ImageClassifier', 'backbone': {'type': 'R'}}
    assert plain_student({'type': 'X', 'losses': 1}) == {'type': 'X', 'losses': 1}
    assert cfg['type'] == 'Distilled'


def test_checkpoint_that_does_not_fit(tmp_path, teacher):
    state = teacher.state_dict()
    state.pop('head.fc.bias')
    state['head.extra'] = torch.zeros(1)
    torch.save(state, tmp_path / 't.pth')
    spec = build_teacher({'model': student_cfg(), 'checkpoint': str(tmp_path / 't.pth')}, 'big')
    with pytest.raises(ValueError, match=r'1 missing.*head.fc.bias\n.*1 unexpected.*head.extra'):
        spec.load_weights()
    spec = build_teacher(
        {'model': student_cfg(), 'checkpoint': str(tmp_path / 't.pth'),
         'allow_missing': 'head.fc', 'allow_unexpected': ['head.']}
    )  # fmt: skip
    spec.load_weights()
    assert isinstance(spec.model, nn.Module)
