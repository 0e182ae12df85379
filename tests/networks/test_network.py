"""Losses on logits, and taps that read none."""

import pytest
from torch import nn

from mmkd_plugin import distill
from mmkd_plugin.networks import Tap, network, network_of
from tests.conftest import DKD, KD, build, student_cfg
from tests.detection import LOGITS, detector, faster_rcnn_cfg
from tests.distillation.test_student import Toy


@pytest.fixture
def said(monkeypatch):
    texts: list[str] = []
    monkeypatch.setattr(network, 'print_log', lambda text, *_: texts.append(text))
    return texts


@pytest.mark.parametrize('loss', [KD['loss_kd'], DKD['loss_dkd']], ids=['kd', 'dkd'])
class TestClassifiers:
    def test_the_classifier_is_fine(self, loss, student, teacher, said):
        distill(student, {'loss_x': loss}, teacher=teacher)
        assert not said

    def test_a_pooled_vector_is_refused(self, loss, student, teacher):
        on = {'student': 'neck', 'teacher': 'head.fc'}
        with pytest.raises(ValueError, match=r"class scores, and 'neck' of the student lies before the classifier"):
            distill(student, {'loss_x': {**loss, 'on': on}}, teacher=teacher)

    def test_so_it_is_of_the_teacher(self, loss, student, teacher):
        on = {'student': 'head.fc', 'teacher': 'neck'}
        with pytest.raises(ValueError, match=r"'neck' of the teacher lies before the classifier"):
            distill(student, {'loss_x': {**loss, 'on': on}}, teacher=teacher)

    def test_another_linear_layer_of_the_head_is_refused(self, loss, student, teacher):
        for model in (student, teacher):
            model.head.fc = nn.Sequential(nn.Linear(32, 12), nn.Linear(12, 10))
        with pytest.raises(ValueError, match=r"'head.fc.0' of the student reads 12 values for 10 classes"):
            distill(student, {'loss_x': {**loss, 'on': 'head.fc.0'}}, teacher=teacher)

    def test_labels_that_do_not_exclude_each_other(self, loss, teacher):
        cfg = student_cfg()
        cfg['head'] = {'type': 'MultiLabelLinearClsHead', 'num_classes': 10, 'in_channels': 32}
        with pytest.raises(ValueError, match="the student's MultiLabelLinearClsHead do not exclude each other"):
            distill(build(cfg), {'loss_x': loss}, teacher=teacher)


def test_a_classifier_beside_the_head(teacher, said):
    """An early exit, or a model of one's own with a projection as its `head`."""
    student = build(student_cfg())
    student.exit = nn.Sequential(nn.Linear(32, 10))
    student.backbone.exit = nn.Linear(32, 10)
    for tap in ('exit', 'exit.0', 'backbone.exit'):
        network_of(student).check_logits(Tap.parse(tap), 'x')
    assert not said
    student.exit = nn.Linear(32, 12)
    network_of(student).check_logits(Tap.parse('exit'), 'x')
    assert 'nobody knows' in said[0]


def test_sigmoid_losses_are_said(teacher, said):
    cfg = student_cfg()
    cfg['head']['loss'] = {'type': 'CrossEntropyLoss', 'use_sigmoid': True}
    distill(build(cfg), KD, teacher=teacher)
    assert 'takes the sigmoid of each class' in said[0]


def test_a_model_of_unknown_parts_is_said(said):
    class Curved(Toy):
        def __init__(self):
            super().__init__()
            self.net.append(nn.Identity())

    distill(Curved(), {'loss_kd': {'type': 'KDLoss', 'on': 'net.4'}}, teacher=Curved(), input_shape=(3, 16, 16))
    assert "nobody knows whether 'net.4' of the student" in said[0]


@pytest.mark.openmmlab
def test_box_regression_is_refused():
    with pytest.raises(ValueError, match=rf"fc_reg' of the student reads none: on='{LOGITS}'"):
        distill(
            detector(faster_rcnn_cfg()),
            {'loss_kd': {'type': 'KDLoss', 'on': 'roi_head.bbox_head.fc_reg'}},
            teacher=detector(faster_rcnn_cfg(), 1),
        )
