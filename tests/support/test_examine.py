"""A dozen detectors of different kinds still do what the table says; how refusals and crashes are told apart."""

from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from mmkd_plugin.networks import SizeError
from mmkd_plugin.options import check_bool
from mmkd_plugin.support import Record, config_folder
from mmkd_plugin.support.batch import detection_batch
from mmkd_plugin.support.columns import COLUMNS, losses_of, observed
from mmkd_plugin.support.examine import NotRunError, examine, read_untrained, told, verdict_of
from mmkd_plugin.support.page import in_common
from tests.detection import detector, one_stage_cfg
from tools.support_matrix import RESULTS

DOZEN = [
    'atss/atss_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'gfl/gfl_r50_fpn_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    'yolox/yolox_tiny_8xb8-300e_coco.py',
]


@pytest.mark.openmmlab
@pytest.mark.parametrize('config', DOZEN)
def test_what_the_table_says(config):
    found = examine(config_folder() / config)
    expected = Record(RESULTS).found[config]
    assert list(found['columns']) == list(COLUMNS)
    for name, (verdict, said) in expected['columns'].items():
        assert (found['columns'][name][0], in_common(found['columns'][name][1])) == (verdict, in_common(said)), name


def test_columns_of_a_head_with_distributions():
    model = detector(one_stage_cfg('GFL')).eval()
    outputs: dict[str, Any] = {}
    handles = observed(model, outputs)
    with torch.no_grad():
        model(torch.zeros(1, 3, 192, 192), mode='tensor')
    for handle in handles:
        handle.remove()
    losses: Any = losses_of(model, outputs)
    scores = [f'bbox_head[0][{i}]' for i in range(5)]
    assert losses['logits']['on'] == 'bbox_head[0]'  # to be refused
    assert losses['features']['on'] == [f'neck[{i}]' for i in range(5)]
    assert losses['dense']['on'] == scores
    assert losses['ld']['on'] == [*scores, *(f'bbox_head[1][{i}]' for i in range(5))]
    assert losses['crosskd']['through'] == [f'bbox_head.cls_convs.0@{i}' for i in range(5)]  # it has no third
    del model.bbox_head
    assert losses_of(model, outputs)['dense'] == 'no dense head'


def test_a_crash_is_no_refusal():
    """Even where a message of ours wraps it."""

    def told_of(raised, cause=None):
        try:
            raise raised from cause
        except Exception as error:
            return verdict_of(error)

    with pytest.raises(ValueError) as refusal:
        check_bool('no', 'x')
    assert verdict_of(refusal.value) == ['refused', "x='no' given, expected True or False"]
    assert told_of(ValueError('wrapped'), refusal.value) == ['refused', 'wrapped']
    assert told_of(ValueError('said elsewhere')) == ['fails', 'said elsewhere']
    assert told_of(AttributeError('a crash\nin two lines')) == ['fails', 'AttributeError: a crash']
    assert told_of(refusal.value, RuntimeError('a crash')) == ['fails', "x='no' given, expected True or False"]
    assert told_of(SizeError('too small'), refusal.value)[0] == 'fails'
    assert told(RuntimeError(f'{nn.__file__} is missing. Please check it')) == 'torch/nn/__init__.py is missing'


def test_a_config_without_weights_and_gpus(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        "model = dict(type='X', data_preprocessor=dict(type='DetDataPreprocessor', batch_augments=[\n"
        "    dict(type='BatchFixedSizePad', size=(1024, 1024))]),\n"
        "    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='x'), norm_cfg=dict(type='SyncBN')),\n"
        "    neck=[dict(pretrained='x', init_cfg=dict(type='Xavier'))])\n"
    )
    model = read_untrained(path).model
    assert model.backbone == ConfigDict(init_cfg=None, norm_cfg=dict(type='BN'))
    assert model.neck == [dict(pretrained=None, init_cfg=dict(type='Xavier'))]
    assert model.data_preprocessor.batch_augments is None
    with pytest.raises(NotRunError, match='FileNotFoundError'):
        read_untrained(tmp_path / 'other.py')


def test_a_batch():
    batch = detection_batch((3, 64, 96), classes=1, masks=True, stride=8)
    assert [tuple(image.shape) for image in batch['inputs']] == [(3, 64, 96)] * 2
    sample = batch['data_samples'][1]
    assert sample.gt_instances.labels.tolist() == [0, 0]
    boxes = sample.gt_instances.bboxes.tensor
    assert boxes[0].tolist() == pytest.approx([4.8, 3.2, 52.8, 35.2])
    assert sample.gt_instances.masks.masks.shape == (2, 64, 96)
    assert sample.gt_instances.masks.masks[0].sum() == 48 * 32
    assert sample.gt_sem_seg.sem_seg.shape == (1, 8, 12)
    assert sample.proposals.bboxes.shape == (20, 4)
    assert 'masks' not in detection_batch((3, 64, 96), classes=None)['data_samples'][0].gt_instances
