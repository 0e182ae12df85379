"""Where the rows of an older network's classifier are in one that knows more classes."""

import pytest
import torch
from torch import nn

from mmkd_plugin.networks import network_of
from tests.conftest import build, student_cfg
from tests.detection import cascade_rcnn_cfg, detector, faster_rcnn_cfg, one_stage_cfg

pytestmark = pytest.mark.openmmlab


def of_classes(number):
    cfg = student_cfg()
    cfg['head']['num_classes'] = number
    return build(cfg)


def rows(new, old):
    found = network_of(new).rows_of(network_of(old, 'older'))
    return {name: index.tolist() for name, index in found.items()}


def test_a_classifiers_old_rows_come_first():
    assert rows(of_classes(10), of_classes(4)) == {'head.fc.weight': [0, 1, 2, 3], 'head.fc.bias': [0, 1, 2, 3]}
    assert rows(of_classes(10), of_classes(10)) == {}


def test_the_classifier_of_a_deeper_head():
    def deep(number):
        model = of_classes(number)
        model.head.fc = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, number))
        return model

    assert list(rows(deep(10), deep(4))) == ['head.fc.2.weight', 'head.fc.2.bias']


def test_fewer_classes_and_other_classifiers_are_refused():
    with pytest.raises(ValueError, match='the student tells 4 classes apart and older 10'):
        rows(of_classes(4), of_classes(10))
    model = of_classes(10)
    model.head.fc = nn.Conv2d(32, 10, 1)
    with pytest.raises(ValueError, match='LinearClsHead cannot grow from 4 to 10 classes: it has no linear layer'):
        rows(model, of_classes(4))


def faster_rcnn(number, **options):
    return detector(faster_rcnn_cfg(**{'roi_head.bbox_head.num_classes': number, **options}))


def test_a_detectors_background_is_last_and_boxes_have_four_rows():
    head = 'roi_head.bbox_head.'
    found = rows(faster_rcnn(10), faster_rcnn(3))
    assert found == {
        f'{head}fc_cls.weight': [0, 1, 2, 10], f'{head}fc_cls.bias': [0, 1, 2, 10],
        f'{head}fc_reg.weight': list(range(12)), f'{head}fc_reg.bias': list(range(12)),
    }  # fmt: skip
    shared = {'roi_head.bbox_head.reg_class_agnostic': True}
    assert list(rows(faster_rcnn(10, **shared), faster_rcnn(3, **shared))) == [
        f'{head}fc_cls.weight',
        f'{head}fc_cls.bias',
    ]


def test_every_stage_of_a_cascade_grows():
    def cascade(number):
        cfg = cascade_rcnn_cfg()
        for head in cfg['roi_head']['bbox_head']:
            head['num_classes'] = number
        return detector(cfg)

    found = rows(cascade(10), cascade(3))
    assert {name.split('.')[2] for name in found} == {'0', '1', '2'}
    assert all(index[-1] == 10 for index in found.values())


def test_dense_heads_are_refused():
    def dense(number):
        cfg = one_stage_cfg('RetinaNet')
        cfg['bbox_head']['num_classes'] = number
        return detector(cfg)

    with pytest.raises(
        ValueError, match='RetinaHead cannot grow from 3 to 10 classes: a dense head scores all anchors'
    ):
        rows(dense(10), dense(3))


def test_columns_that_are_not_classes_are_refused():
    model = faster_rcnn(10)
    model.roi_head.bbox_head.loss_cls.custom_cls_channels = True
    with pytest.raises(ValueError, match='its scores are not just a row for each class and the background'):
        rows(model, faster_rcnn(3))


def test_grown_scores_are_the_old_ones():
    """An RoI's old logits and boxes are what the older detector's would be."""
    new, old = faster_rcnn(10), faster_rcnn(3)
    own, before = new.roi_head.bbox_head, old.roi_head.bbox_head
    for name, index in network_of(new).rows_of(network_of(old)).items():
        new.get_parameter(name).data[index] = old.get_parameter(name).data
    features = torch.randn(5, before.fc_cls.in_features)
    columns = [0, 1, 2, 10]
    assert torch.equal(own.fc_cls(features)[:, columns], before.fc_cls(features))
    assert torch.equal(own.fc_reg(features)[:, :12], before.fc_reg(features))
