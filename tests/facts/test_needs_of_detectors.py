"""What dense heads and boxes tell a loss, in the student's own pass."""

import copy
from typing import Any, ClassVar

import pytest
import torch
from mmengine.registry import MODELS

from mmkd_plugin import distill
from mmkd_plugin.losses import DistillLoss
from tests.detection import batch as scenes
from tests.detection import detector, one_stage_cfg

pytestmark = pytest.mark.openmmlab


@MODELS.register_module()
class LookingLoss(DistillLoss):
    """Remembers what it was told."""

    needs: ClassVar[tuple[str, ...]] = ('boxes', 'box_labels', 'image_sizes', 'assignments', 'iteration')
    seen: ClassVar[list[Any]] = []

    def forward(self, student, teacher, boxes, box_labels, image_sizes, assignments, iteration):
        self.seen.append((boxes, box_labels, image_sizes, assignments, iteration))
        return self.loss_weight * (student - teacher).square().mean()


class TestNeedsOfDetectors:
    @pytest.mark.parametrize(('kind', 'calls'), [('RetinaNet', 5), ('GFL', 5), ('FCOS', 1)])
    def test_assignments_are_the_students_own(self, kind, calls, monkeypatch):
        from mmengine.logging import MessageHub

        cfg = one_stage_cfg(kind)
        losses = {'loss_look': {'type': 'LookingLoss', 'on': 'bbox_head[0][0]'}}
        model = distill(detector(cfg), losses, teacher=detector(cfg, 1)).train()
        told, original = [], model.bbox_head.get_targets

        def get_targets(*args, **kwargs):
            told.append(original(*args, **kwargs))
            return told[-1]

        monkeypatch.setattr(model.bbox_head, 'get_targets', get_targets)
        MessageHub.get_current_instance().update_info('epoch', 0)
        MessageHub.get_current_instance().update_info('iter', 7)
        data = scenes()
        expected = copy.deepcopy(data['data_samples'])
        LookingLoss.seen.clear()
        model(**data, mode='loss')
        boxes, box_labels, image_sizes, assignments, iteration = LookingLoss.seen[-1]
        assert len(assignments) == calls
        levels = told[0][1 if kind == 'GFL' else 0]
        torch.testing.assert_close(torch.cat(assignments), torch.cat([level.reshape(-1) for level in levels]))
        assert (torch.cat(assignments) < 10).any()
        corners = torch.cat([sample.gt_instances.bboxes for sample in expected])
        assert boxes[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
        assert torch.equal(boxes[:, 1:], corners)
        assert torch.equal(box_labels, torch.cat([sample.gt_instances.labels for sample in expected]))
        assert image_sizes.tolist() == [[96, 96]] * 2
        assert iteration == 7

    def test_a_loss_that_lines_them_up_with_positions(self):
        class Lines(DistillLoss):
            needs: ClassVar[tuple[str, ...]] = ('assignments',)

            def forward(self, student, teacher, assignments):
                scores = student.permute(0, 2, 3, 1).reshape(-1, 10)  # 9 anchors
                return (scores[assignments[0] < 10] - 1).square().sum() / len(scores)

        cfg = one_stage_cfg('RetinaNet')
        losses = {'loss_l': {'type': Lines, 'on': 'bbox_head[0][0]'}}
        model = distill(detector(cfg), losses, teacher=detector(cfg, 1)).train()
        assert model(**scenes(), mode='loss')['loss_l'].requires_grad

    def test_a_tap_outside_of_dense_heads(self):
        cfg = one_stage_cfg('RetinaNet')
        losses = {'loss_look': {'type': 'LookingLoss', 'on': 'neck[0]'}}
        with pytest.raises(ValueError, match='needs the assignments of a dense head, and reads none that'):
            distill(detector(cfg), losses, teacher=detector(cfg, 1))
