from pathlib import Path

import pytest

from mmkd_plugin.files.configs import config_path, load_config, read_config


def test_config_path_is_absolute_and_there():
    path = Path(config_path('dkd_resnet.py'))
    assert path.is_absolute()
    assert path.is_file()


def test_unknown_config_names_the_others():
    with pytest.raises(FileNotFoundError, match=r"no config 'dkd_resent.py'.*dkd_resnet.py"):
        config_path('dkd_resent.py')


def test_load_config_merges_bases():
    cfg = load_config('dkd_resnet.py')
    assert cfg['model']['type'] == 'Distilled'
    assert cfg['model']['backbone']['type'] == 'ResNet_CIFAR'


def test_our_zoo_knows_shipped_weights():
    cfg, weights = read_config('mmkd_plugin::digits/resnet_teacher.py')
    assert cfg.model.head.num_classes == 10
    assert weights is not None
    assert Path(weights).is_file()
    assert read_config('mmkd_plugin::digits/resnet_student.py')[1] is None


@pytest.mark.openmmlab
def test_mmpretrain_zoo_knows_published_weights():
    cfg, weights = read_config('mmpretrain::resnet/resnet34_8xb32_in1k.py')
    assert cfg.model.backbone.depth == 34
    assert weights is not None
    assert weights.endswith('.pth')
    assert '://' in weights


@pytest.mark.openmmlab
def test_mmdet_zoo_knows_published_weights():
    cfg, weights = read_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    assert cfg.model.type == 'FasterRCNN'
    assert weights is not None


def test_missing_path_and_package(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none.py.*mmpretrain::'):
        read_config(str(tmp_path / 'none.py'))
    with pytest.raises(ModuleNotFoundError, match='needs the package mmnothing'):
        read_config('mmnothing::a/b.py')


def test_own_path(tmp_path):
    path = tmp_path / 'c.py'
    path.write_text("model = dict(type='X')\n")
    assert read_config(str(path))[0].model.type == 'X'


def test_folder_names_its_configs(tmp_path):
    for name in ('b.py', 'a.yaml', 'notes.txt'):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r'is a folder, expected a file\. In it: a\.yaml, b\.py$'):
        read_config(str(tmp_path))


def test_file_that_is_no_config(tmp_path):
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(ValueError, match=r'notes.txt. is no config, expected a file that ends with .py, .json'):
        read_config(str(tmp_path / 'notes.txt'))


@pytest.mark.openmmlab
@pytest.mark.parametrize('name', ['mmpretrain::resnet', 'mmpretrain::resnet34_8xb32_in1k.py', 'mmpretrain::resnet/'])
def test_incomplete_name_in_a_package(name):
    with pytest.raises(FileNotFoundError, match='mmpretrain has no config'):
        read_config(name)
