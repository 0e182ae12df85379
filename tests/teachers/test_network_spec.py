import copy
from pathlib import Path

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from safetensors.torch import save_file
from torch import nn

from mmkd_plugin.files.configs import config_path
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


@pytest.mark.parametrize('state_key', [None, 'ema_state_dict'])
def test_averaged_weights_beside_the_others_are_told(tmp_path, teacher, monkeypatch, state_key):
    told: list[str] = []
    monkeypatch.setattr('mmkd_plugin.teachers.network_spec.print_log', lambda text, *_: told.append(text))
    path = tmp_path / 't.pth'
    torch.save({'state_dict': teacher.state_dict(), 'ema_state_dict': teacher.state_dict()}, path)
    build_teacher({'model': student_cfg(), 'checkpoint': str(path), 'state_key': state_key}).load_weights()
    assert ["state_key='ema_state_dict'" in text for text in told] == ([] if state_key else [True])


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


@pytest.mark.parametrize(
    ('key', 'value', 'error', 'match'),
    [
        *((key, value, ValueError, f'big: {key}={value!r} given, expected True or False')
          for key in ('untrained', 'optimize', 'trust_pickle') for value in ('no', 'False', 0, None)),
        *((key, value, ValueError, rf"big: {key}=.* given, expected prefixes of keys such as \['head.'\]")
          for key in ('allow_missing', 'allow_unexpected') for value in (True, None, '', [1], ['head.', ''], {'a': 1})),
        ('checkpoint', 3, TypeError, 'big has checkpoint=3, expected a path or an address'),
        ('checkpoint', '', TypeError, "big has checkpoint='', expected a path or an address"),
        ('state_key', True, ValueError, 'big: state_key=True given, expected a key of the checkpoint'),
        *(('revise_keys', value, ValueError, r"big: revise_keys=.*such as \[\('\^model\\\\.', ''\)\]")
          for value in (None, 'model.', {'a': 'b'}, ['a', 'b'], [('a',)], [('a', None)], ('a', 'b'))),
        ('revise_keys', [('(', '')], ValueError, r"big: revise_keys has '\(', no regular expression: missing \)"),
    ],
)  # fmt: skip
def test_values_of_another_kind_name_the_teacher_and_the_key(key, value, error, match):
    with pytest.raises(error, match=match):
        build_teacher({'model': student_cfg(), 'checkpoint': 'x.pth', key: value}, 'big')


def test_words_of_a_command_line_neither_untrain_nor_trust(tmp_path):
    from mmengine.config import Config

    cfg = Config({'teacher': {'model': student_cfg(), 'checkpoint': 'x.pth'}})
    for key in ('untrained', 'trust_pickle'):
        changed = copy.deepcopy(cfg)
        changed.merge_from_dict({f'teacher.{key}': 'no'})
        with pytest.raises(ValueError, match=f"teacher: {key}='no'"):
            build_teacher(changed.teacher)


@pytest.mark.parametrize('name', ['teacher.pth', 'https://host/teacher.safetensors', 'run/t.PTH', 'best.pth.tar'])
def test_checkpoint_in_place_of_a_config(name):
    for spec in (name, {'config': name}, {'config': name, 'untrained': True}):
        with pytest.raises(ValueError, match=rf"give both, dict\(config='my_teacher.py', checkpoint='{name}'\)"):
            build_teacher(spec)


def test_folder_as_config(tmp_path):
    (tmp_path / 'teacher.py').touch()
    with pytest.raises(FileNotFoundError, match=r'is a folder, expected a file\. In it: teacher\.py'):
        build_teacher({'config': str(tmp_path), 'checkpoint': 'x.pth'})


def test_paths_are_as_good_as_words(tmp_path, teacher):
    torch.save(teacher.state_dict(), tmp_path / 't.pth')
    spec = build_teacher({'model': student_cfg(), 'checkpoint': tmp_path / 't.pth'})
    spec.load_weights()
    assert torch.equal(spec.model.head.fc.weight, teacher.head.fc.weight)
    config = Path(config_path('digits/resnet_teacher.py'))
    assert build_teacher({'config': config, 'untrained': True}).checkpoint is None


class TestFilesOfOthers:
    """What the file of another project needs besides its path."""

    def load(self, path, **options):
        spec = build_teacher({'model': student_cfg(), 'checkpoint': str(path), **options})
        spec.load_weights()
        return spec.model.state_dict()

    def test_safetensors(self, tmp_path, teacher):
        save_file(teacher.state_dict(), tmp_path / 't.safetensors')
        assert torch.equal(self.load(tmp_path / 't.safetensors')['head.fc.weight'], teacher.head.fc.weight)

    def test_renamed(self, tmp_path, teacher):
        torch.save({f'net.{key}': value for key, value in teacher.state_dict().items()}, tmp_path / 't.pth')
        with pytest.raises(ValueError, match=r"Everything fits with revise_keys=\[\('\^net\\\\.', ''\)\]"):
            self.load(tmp_path / 't.pth')
        state = self.load(tmp_path / 't.pth', revise_keys=[[r'^net\.', '']])
        assert torch.equal(state['head.fc.weight'], teacher.head.fc.weight)

    def test_averaged_copy_of_mmengine(self, tmp_path, teacher):
        averaged = ExponentialMovingAverage(teacher)
        torch.save({'meta': {}, 'ema_state_dict': averaged.state_dict()}, tmp_path / 't.pth')
        with pytest.raises(ValueError, match=r"t.pth' has no state_dict.*state_key='ema_state_dict'"):
            self.load(tmp_path / 't.pth')
        state = self.load(tmp_path / 't.pth', state_key='ema_state_dict')
        assert torch.equal(state['head.fc.weight'], teacher.head.fc.weight)

    def test_weights_that_are_not_finite(self, tmp_path, teacher):
        state = copy.deepcopy(teacher.state_dict())
        state['head.fc.weight'][0, 0] = float('nan')
        torch.save(state, tmp_path / 't.pth')
        with pytest.raises(ValueError, match=r"t.pth' holds NaN or infinite weights, 1 of \d+ tensors: head.fc.weight"):
            self.load(tmp_path / 't.pth')

    @pytest.mark.parametrize('meta', [None, [], 'x', {'dataset_meta': 'x'}, {'dataset_meta': {'classes': 3}}])
    def test_odd_meta_data(self, tmp_path, teacher, meta):
        torch.save({'meta': meta, 'state_dict': teacher.state_dict()}, tmp_path / 't.pth')
        self.load(tmp_path / 't.pth')


@pytest.mark.parametrize('text', ['a = 1\n', 'model = None\n', "model = 'ResNet'\n"])
def test_config_without_model(tmp_path, text):
    (tmp_path / 'c.py').write_text(text)
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
