"""Small detectors of mmdet, and batches for them."""

import copy
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData

from mmkd_plugin.files.configs import config_path, read_config

from .conftest import trained_like

SIZE = 96
LOGITS = 'roi_head.bbox_head.fc_cls'
DKD: dict[str, Any] = {'loss_dkd': {'type': 'DKDLoss', 'on': LOGITS, 'beta': 0.25, 'temperature': 1.0}}


def faster_rcnn_cfg(**options: Any) -> dict[str, Any]:
    """The digit_scenes student, with fewer RoIs; options as in ``--cfg-options``, below ``model``."""
    cfg = Config.fromfile(config_path('digit_scenes/faster_rcnn_student.py'))
    cfg.merge_from_dict({'model.train_cfg.rcnn.sampler.num': 16, 'model.train_cfg.rpn_proposal.max_per_img': 30})
    cfg.merge_from_dict({f'model.{key}': value for key, value in options.items()})
    return cfg.model.to_dict()


def cascade_rcnn_cfg() -> dict[str, Any]:
    """Three stages over the same backbone and neck."""
    cfg = faster_rcnn_cfg()
    head, rcnn = cfg['roi_head']['bbox_head'], cfg['train_cfg']['rcnn']
    heads = [copy.deepcopy(head) for _ in range(3)]
    for stage, one in enumerate(heads):
        one['reg_class_agnostic'] = True
        one['bbox_coder']['target_stds'] = [x / (stage + 1) for x in (0.1, 0.1, 0.2, 0.2)]
    cfg['roi_head'].update(type='CascadeRoIHead', num_stages=3, stage_loss_weights=[1, 0.5, 0.25], bbox_head=heads)
    cfg['train_cfg']['rcnn'] = [copy.deepcopy(rcnn) for _ in range(3)]
    cfg['type'] = 'CascadeRCNN'
    return cfg


def mask_rcnn_cfg() -> dict[str, Any]:
    """With a mask branch beside the box branch."""
    cfg = faster_rcnn_cfg()
    extractor = copy.deepcopy(cfg['roi_head']['bbox_roi_extractor'])
    extractor['roi_layer']['output_size'] = 14
    cfg['roi_head'].update(
        mask_roi_extractor=extractor,
        mask_head={
            'type': 'FCNMaskHead', 'num_convs': 1, 'in_channels': 16, 'conv_out_channels': 16, 'num_classes': 10,
            'loss_mask': {'type': 'CrossEntropyLoss', 'use_mask': True, 'loss_weight': 1.0},
        },
    )  # fmt: skip
    cfg['train_cfg']['rcnn']['mask_size'] = 28
    cfg['test_cfg']['rcnn']['mask_thr_binary'] = 0.5
    cfg['type'] = 'MaskRCNN'
    cfg['data_preprocessor']['pad_mask'] = True
    return cfg


def one_stage_cfg(kind: str) -> dict[str, Any]:
    """RetinaNet, FCOS, GFL or ATSS over the same backbone and neck, from mmdet's own configs."""
    name = {'RetinaNet': 'retinanet_r50', 'FCOS': 'fcos_r50-caffe', 'GFL': 'gfl_r50', 'ATSS': 'atss_r50'}[kind]
    tail = 'fpn_gn-head_1x_coco' if kind == 'FCOS' else 'fpn_1x_coco'
    base = Config.fromfile(config_path('digit_scenes/faster_rcnn_student.py'))
    model = read_config(f'mmdet::{kind.lower()}/{name}_{tail}.py')[0].model.to_dict()
    model['backbone'] = base.model.backbone.to_dict()
    model['neck'].update(in_channels=[8, 16, 32, 64], out_channels=32)
    model['bbox_head'].update(num_classes=10, in_channels=32, feat_channels=32, stacked_convs=1)
    return model


def detector(cfg: dict[str, Any], seed: int = 0) -> Any:
    """Built and initialised, with batch norms as after training."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(ConfigDict(copy.deepcopy(cfg)))
        model.init_weights()
    return trained_like(model, seed)


def batch(
    n: int = 2, boxes: int = 3, classes: int = 10, masks: bool = False, size: tuple[int, int] = (SIZE, SIZE)
) -> dict[str, Any]:
    """Images with random boxes."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    generator = torch.Generator().manual_seed(2)
    samples = []
    for _ in range(n):
        corner = torch.rand(boxes, 2, generator=generator) * (SIZE - 50)
        side = torch.rand(boxes, 2, generator=generator) * 25 + 20
        found = InstanceData(
            bboxes=torch.cat([corner, corner + side], 1),
            labels=torch.randint(0, classes, (boxes,), generator=generator),
        )
        if masks:
            found.masks = BitmapMasks([torch.ones(SIZE, SIZE).numpy()] * boxes, SIZE, SIZE)
        shape = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size}
        samples.append(DetDataSample(metainfo={**shape, 'scale_factor': (1.0, 1.0)}))
        samples[-1].gt_instances = found
    return {'inputs': torch.randn(n, 3, *size, generator=generator), 'data_samples': samples}


def total(model: Any, data: dict[str, Any]) -> torch.Tensor:
    """The sum that training minimises."""
    return model.parse_losses(model(**data, mode='loss'))[0]
