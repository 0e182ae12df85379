"""The detection configs: the published COCO recipe, mmdet's for VOC, and taps that are there.

The expected numbers stand here once more, written from the sources (mdistiller's and ReviewKD's
detectron2 configs), not read from the configs. Nothing is downloaded: no weights are initialised.
"""

import functools
import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmkd_plugin.distillation.term import read_pairs
from mmkd_plugin.networks.taps import Tap, Taps, find_module
from mmkd_plugin.teachers import build_teacher, plain_student, untrained
from tests.configs.reading import CONFIGS, lines, load, zoo

pytestmark = pytest.mark.openmmlab

FPN = [f'neck[{level}]' for level in range(5)]
ROI_LOGITS = 'roi_head.bbox_head.fc_cls'
DKD = {'type': 'DKDLoss', 'on': ROI_LOGITS, 'alpha': 1, 'beta': 0.25, 'temperature': 1}
KD = {'type': 'KDLoss', 'on': ROI_LOGITS, 'temperature': 1, 'loss_weight': 1}  # unpublished
FITNET = {'type': 'FitNetLoss', 'on': FPN, 'regressor': 'conv', 'loss_weight': 1}  # unpublished


def nst(on: Any) -> dict[str, Any]:
    return {'type': 'NSTLoss', 'on': on, 'kernel': 'polynomial', 'loss_weight': 50}


def reviewkd(weight: float) -> dict[str, Any]:
    return {'type': 'ReviewKDLoss', 'on': FPN, 'loss_weight': weight}


class Recipe(NamedTuple):
    """A teacher and a student by name, the data, and the losses."""

    teacher: str
    student: str
    data: str
    losses: dict[str, dict]


def coco(teacher: str, student: str, weight: float, stride_16: Any = 'backbone.layer3') -> dict[str, Recipe]:
    """The recipes of a pair on COCO by name; the weight is ReviewKD's."""
    losses = {
        'kd': {'loss_kd': KD},
        'dkd': {'loss_dkd': DKD},
        'fitnet': {'loss_fitnet': FITNET},
        'nst': {'loss_nst': nst(stride_16)},
        'reviewkd': {'loss_reviewkd': reviewkd(weight)},
        'dkd_reviewkd': {'loss_dkd': DKD, 'loss_reviewkd': reviewkd(weight)},
    }
    return {
        f'{method}/{method}_faster-rcnn_{teacher}_{student}_fpn_180k_coco.py': Recipe(
            f'mmdet::faster_rcnn/faster-rcnn_{teacher}_fpn_2x_coco.py', f'{student}_fpn', '180k_coco', entry
        )
        for method, entry in losses.items()
    }


def voc(teacher: str, student: str, data: str) -> dict[str, Recipe]:
    """The recipes of a pair on VOC by name; COCO's numbers."""
    review = reviewkd(1)
    del review['loss_weight']  # 1 by default
    losses = {'dkd': {'loss_dkd': DKD}, 'dkd_reviewkd': {'loss_dkd': DKD, 'loss_reviewkd': review}}
    return {
        f'{method}/{method}_faster-rcnn_{teacher}_{student}_fpn_{data}.py': Recipe(
            f'{teacher}_fpn', f'{student}_fpn', data, entry
        )
        for method, entry in losses.items()
    }


RECIPES = {
    **coco('r101', 'r18', 1.2),
    **coco('r101', 'r50', 1.0),
    # MobileNetV2 ends its stages without a ReLU, so its teacher is read before one
    **coco('r50', 'mobilenet-v2', 2.0, {'student': 'backbone.layer5', 'teacher': 'backbone.layer3.5.relu:input'}),
    **voc('r101', 'r50', 'voc0712'),
    **voc('r50', 'r18', 'voc0712'),
    **voc('r101', 'r50', 'voc2007'),
    **voc('r50', 'r18', 'voc2007'),
    'nst/nst_faster-rcnn_r101_r50-caffe-c4_voc2007.py': Recipe(
        'r101-caffe-c4', 'r50-caffe-c4', 'voc2007', {'loss_nst': nst('backbone.layer3')}
    ),
}
COCO = ('r50_fpn', 'r18_fpn', 'mobilenet-v2_fpn')
VOC = {
    'voc0712': ('r101_fpn', 'r50_fpn', 'r18_fpn'),
    'voc2007': ('r101_fpn', 'r50_fpn', 'r18_fpn', 'r101-caffe-c4', 'r50-caffe-c4'),
}
PLAIN = {
    **{f'plain/faster-rcnn_{model}_180k_coco.py': ('180k_coco', model) for model in COCO},
    **{f'plain/faster-rcnn_{model}_{data}.py': (data, model) for data, models in VOC.items() for model in models},
}
# as mmdetection reports them
TEACHER_AP = {'r101_fpn_2x': '0.398', 'r50_fpn_2x': '0.384'}
NAMES = sorted([*RECIPES, *PLAIN])
COCO_NAMES = [name for name in NAMES if name.endswith('_coco.py')]
VOC_NAMES = [name for name in NAMES if name not in COCO_NAMES]


@pytest.fixture(autouse=True)
def _mmdet_scope(_mmpretrain_scope: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names resolve in mmdet, and whoever wants a file from the internet fails."""

    def refuse(*args: Any) -> None:
        raise AssertionError(f'a connection to {args[1:]}')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def detection(name: str) -> Any:
    return load(f'detection/{name}')


def without_scope(cfg: Any) -> Any:
    """A config without the notes that mmengine makes of which package a part came from."""
    if isinstance(cfg, dict):
        return {key: without_scope(value) for key, value in cfg.items() if key != '_scope_'}
    return [without_scope(value) for value in cfg] if isinstance(cfg, list) else cfg


@functools.cache
def plain_model(name: str) -> Any:
    """A plain detector, ready to train; on the device that has shapes and no values."""
    with torch.device('meta'):
        return MODELS.build(detection(name).model).train()


@functools.cache
def zoo_model(name: str) -> Any:
    with torch.device('meta'):
        return build_teacher(untrained(name)).model


def student_of(recipe: Recipe) -> Any:
    # VOC 2007 has the models of VOC 07+12, which are built once
    data = 'voc0712' if recipe.student.endswith('fpn') and recipe.data == 'voc2007' else recipe.data
    return plain_model(f'plain/faster-rcnn_{recipe.student}_{data}.py')


def teacher_of(recipe: Recipe) -> Any:
    return zoo_model(recipe.teacher) if '::' in recipe.teacher else student_of(recipe._replace(student=recipe.teacher))


def test_the_tables_name_every_file():
    found = (p for p in CONFIGS.glob('detection/**/*.py') if p.parent.name != 'kcd')  # test_kcd_recipes.py
    assert sorted(str(p.relative_to(CONFIGS / 'detection')) for p in found) == NAMES


@pytest.mark.parametrize('name', COCO_NAMES)
def test_coco_schedule(name):
    """Batch 8 on 4 GPUs, 180,000 iterations, as detectron2 counts them."""
    cfg = without_scope(detection(name).to_dict())
    assert cfg['optim_wrapper'] == {
        'type': 'OptimWrapper',
        'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9, 'weight_decay': 1e-4},
    }
    assert cfg['param_scheduler'] == [
        {'type': 'LinearLR', 'start_factor': 0.001, 'by_epoch': False, 'begin': 0, 'end': 1000},
        {
            'type': 'MultiStepLR',
            'by_epoch': False,
            'begin': 0,
            'end': 180_000,
            'milestones': [120_000, 160_000],
            'gamma': 0.1,
        },
    ]
    assert cfg['train_cfg'] == {'type': 'IterBasedTrainLoop', 'max_iters': 180_000, 'val_interval': 10_000}
    assert cfg['train_dataloader']['sampler'] == {'type': 'InfiniteSampler', 'shuffle': True}
    assert cfg['train_dataloader']['batch_size'] * 4 == 8 == cfg['auto_scale_lr']['base_batch_size']
    checkpoint = cfg['default_hooks']['checkpoint']
    assert (checkpoint['by_epoch'], 180_000 % checkpoint['interval']) == (False, 0)
    assert cfg['log_processor']['by_epoch'] is False
    # to mmengine such a run is one epoch
    for loss in cfg['model'].get('losses', {}).values():
        assert loss.get('schedule', {'by_epoch': False})['by_epoch'] is False


@pytest.mark.parametrize('name', VOC_NAMES)
def test_voc_is_mmdets(name):
    """Schedule, data and number of classes are those of mmdet's own VOC config."""
    cfg = without_scope(detection(name).to_dict())
    mmdet = without_scope(zoo('mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py').to_dict())
    assert mmdet['train_dataloader'].pop('persistent_workers') is True
    assert cfg['train_dataloader'].pop('persistent_workers') is False  # EpochSeedHook seeds new workers
    if 'voc2007' in name:
        (year,) = cfg['train_dataloader']['dataset']['dataset']['datasets']
        assert year['ann_file'] == 'VOC2007/ImageSets/Main/trainval.txt'
        del mmdet['train_dataloader']['dataset']['dataset']['datasets'][1]
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr'):
        assert cfg[key] == mmdet[key], key
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        assert cfg[key] == mmdet[key], key
    assert cfg['model']['roi_head']['bbox_head']['num_classes'] == 20


@pytest.mark.parametrize('name', NAMES)
def test_runtime(name):
    cfg = detection(name)
    assert cfg.default_scope == 'mmdet'
    assert cfg.custom_imports == {'imports': ['mmkd_plugin'], 'allow_failed_imports': False}
    assert cfg.randomness.seed == 0
    assert cfg.default_hooks.checkpoint.backend_args == {'backend': 'atomic'}
    assert cfg.default_hooks.checkpoint.max_keep_ckpts == 2
    teacher_hook = [] if name in PLAIN else [{'type': 'TeacherEvalHook'}]
    assert cfg.custom_hooks == [{'type': 'EpochSeedHook'}, *teacher_hook]


@pytest.mark.parametrize('name', RECIPES)
def test_losses(name):
    model = detection(name).model
    assert 'task_loss' not in model  # weight 1
    assert model.losses == RECIPES[name].losses


@pytest.mark.parametrize('name', RECIPES)
def test_the_student_and_its_teacher(name):
    """The student is the plain config's, untouched; the teacher's config and file are named rightly."""
    recipe = RECIPES[name]
    cfg = detection(name).to_dict()
    plain = detection(f'plain/faster-rcnn_{recipe.student}_{recipe.data}.py').to_dict()
    teacher = cfg['model'].pop('teacher')
    cfg['model'].pop('losses')
    assert cfg['model'].pop('type') == 'Distilled'
    cfg['model']['type'] = cfg['model'].pop('student')
    for either in (cfg, plain):
        either.pop('custom_hooks')  # test_runtime
    assert cfg == plain
    if '::' in recipe.teacher:
        assert teacher == {'config': recipe.teacher}
        (ap,) = [ap for stem, ap in TEACHER_AP.items() if stem in recipe.teacher]
        assert f'mAP-{ap}' in zoo(recipe.teacher, pretrained=True).model_path
    else:
        stem = f'faster-rcnn_{recipe.teacher}_{recipe.data}'
        epochs = detection(f'plain/{stem}.py').train_cfg.max_epochs
        assert teacher == {
            'config': f'mmkd_plugin::detection/plain/{stem}.py',
            'checkpoint': f'work_dirs/{stem}/epoch_{epochs}.pth',  # where the Runner leaves it
        }


@pytest.mark.parametrize('name', RECIPES)
def test_a_distillation_config_adds_at_most_15_lines(name):
    assert lines(f'detection/{name}') <= 15


@pytest.mark.parametrize('name', RECIPES)
def test_taps_exist_and_give_maps_of_equal_size(name):
    recipe = RECIPES[name]
    models = student_of(recipe), teacher_of(recipe)
    pairs = [pair for loss in recipe.losses.values() for pair in read_pairs(loss['on'], 'loss')]
    maps = []
    for side, model in enumerate(models):
        taps = [pair[side] for pair in pairs]
        for tap in taps:
            find_module(model, tap.path, 'model')
        features = [tap for tap in taps if not tap.path.startswith('roi_head')]
        recorded = Taps(model, features, clone=features)
        with recorded.recording(), torch.no_grad():
            model.extract_feat(torch.zeros(1, 3, 128, 128, device='meta'))
        maps.append([recorded.values()[tap].shape[2:] for tap in features])
    assert maps[0] == maps[1]
    if 'loss_nst' in recipe.losses:
        assert maps[0] == [(8, 8)]  # stride 16
    if Tap(ROI_LOGITS) in dict(pairs):
        student, teacher = (model.get_submodule(ROI_LOGITS).out_features for model in models)
        assert student == teacher == (81 if recipe.data == '180k_coco' else 21)  # background is the last


@pytest.mark.parametrize('model', COCO)
def test_coco_students_freeze_what_detectron2_freezes(model):
    backbone = plain_model(f'plain/faster-rcnn_{model}_180k_coco.py').backbone
    for norm in (module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)):
        assert not norm.training
        assert not norm.weight.requires_grad
    frozen = {
        name.split('.')[0]
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and not module.weight.requires_grad
    }
    assert frozen == (set() if 'mobilenet' in model else {'conv1', 'layer1'})


@pytest.mark.parametrize('method', ['dkd_reviewkd', 'fitnet', 'nst'])
def test_a_distilled_detector_is_built(method):
    """The dry run makes the learnable parts; ReviewKD is as wide inside as FPN."""
    cfg = detection(f'{method}/{method}_faster-rcnn_r50_mobilenet-v2_fpn_180k_coco.py')
    cfg.model.teacher = untrained(cfg.model.teacher)
    cfg.model.input_shape = (3, 64, 64)
    model = MODELS.build(cfg.model)
    assert type(model).__bases__[1].__name__ == plain_student(cfg.model).type == 'FasterRCNN'
    convs = [m for m in model.distill.modules() if isinstance(m, nn.Conv2d) and m.out_channels > 2]
    assert {conv.out_channels for conv in convs} == ({256} if method != 'nst' else set())
    assert len(convs) == {'dkd_reviewkd': 10, 'fitnet': 5, 'nst': 0}[method]


def test_coco_images_are_resized_as_published(tmp_path):
    """A stand-in for COCO, through the config's dataset: the short side is one of six, the long one bounded."""
    from mmdet.registry import DATASETS

    (tmp_path / 'train2017').mkdir()
    (tmp_path / 'annotations').mkdir()
    shapes = [(60, 80), (30, 120)]  # height, width
    for index, shape in enumerate(shapes):
        cv2.imwrite(str(tmp_path / f'train2017/{index}.png'), np.zeros((*shape, 3), np.uint8))
    images = [{'id': i, 'file_name': f'{i}.png', 'height': h, 'width': w} for i, (h, w) in enumerate(shapes)]
    boxes = [{'id': i, 'image_id': i, 'category_id': 1, 'bbox': [1, 1, 9, 9], 'area': 81, 'iscrowd': 0} for i in (0, 1)]
    content = {'images': images, 'annotations': boxes, 'categories': [{'id': 1, 'name': 'person'}]}
    (tmp_path / 'annotations/instances_train2017.json').write_text(json.dumps(content))

    cfg = detection('plain/faster-rcnn_r50_fpn_180k_coco.py').train_dataloader.dataset
    cfg.update(data_root=f'{tmp_path}/', filter_cfg=None)
    dataset = DATASETS.build(cfg)
    shorts = {640, 672, 704, 736, 768, 800}
    seen = {dataset[0]['inputs'].shape[1:] for _ in range(12)}
    assert {min(size) for size in seen} <= shorts
    assert len(seen) > 2
    assert all(abs(w / h - 80 / 60) < 0.01 for h, w in seen)
    assert dataset[1]['inputs'].shape[1:] == (333, 1333)  # 4 times as wide as high: the long side bounds it
