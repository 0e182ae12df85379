"""Detectors: the student's own RoIs and labels, one teacher pass, and what is refused."""

import copy
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from mmkd_plugin import distill
from mmkd_plugin.files.configs import read_config
from mmkd_plugin.losses import dkd_loss, nst_loss
from tests.detection import (
    DKD,
    LOGITS,
    batch,
    cascade_rcnn_cfg,
    detector,
    faster_rcnn_cfg,
    mask_rcnn_cfg,
    one_stage_cfg,
    total,
)  # fmt: skip

FPN = [f'neck[{level}]' for level in range(4)]
NST: dict[str, Any] = {'loss_nst': {'type': 'NSTLoss', 'on': 'backbone.layer3'}}
AT: dict[str, Any] = {'loss_at': {'type': 'ATLoss', 'on': ['backbone.layer2', 'neck[1]']}}
HINT: dict[str, Any] = {'loss_hint': {'type': 'FitNetLoss', 'on': FPN, 'regressor': 'identity'}}
REVIEW: dict[str, Any] = {'loss_reviewkd': {'type': 'ReviewKDLoss', 'on': FPN}}

pytestmark = pytest.mark.openmmlab


def record_training(model, monkeypatch, stage=None):
    """RoIs, labels and logits by another way than ours: the arguments that mmdet passes on."""
    seen = []
    head = model.roi_head.bbox_head if stage is None else model.roi_head.bbox_head[stage]
    original = head.get_targets

    def get_targets(sampling_results, *args, **kwargs):
        targets = original(sampling_results, *args, **kwargs)
        rois = [
            torch.cat([torch.full((len(r.priors), 1), float(i)), r.priors], 1) for i, r in enumerate(sampling_results)
        ]
        seen.append((torch.cat(rois), targets[0]))
        return targets

    monkeypatch.setattr(head, 'get_targets', get_targets)
    head.fc_cls.register_forward_hook(lambda _m, _i, output: seen.append(output))
    return seen


class TestTwoStage:
    def test_teacher_scores_the_rois_that_the_student_sampled(self, monkeypatch):
        student, teacher = detector(faster_rcnn_cfg(), 0), detector(faster_rcnn_cfg(), 1)
        reference = copy.deepcopy(teacher).eval()
        model = distill(student, DKD, teacher=teacher)
        seen = record_training(model, monkeypatch)
        data = batch()
        losses = model(**data, mode='loss')
        logits, (rois, labels) = seen
        assert len(rois) == 2 * 16
        assert {0, 1} == set(rois[:, 0].tolist())
        assert (labels == 10).any()
        assert (labels < 10).any()
        with torch.no_grad():
            scored = reference.roi_head._bbox_forward(reference.extract_feat(data['inputs']), rois)['cls_score']
        expected = dkd_loss(logits, scored, labels, 1.0, 0.25, 1.0)
        torch.testing.assert_close(losses['loss_dkd'], expected, rtol=1e-4, atol=1e-6)

    def test_students_own_losses_stay_what_they_were(self):
        plain = detector(faster_rcnn_cfg())
        model = distill(copy.deepcopy(plain), {**DKD, **NST}, teacher=detector(faster_rcnn_cfg(), 1))
        torch.manual_seed(5)
        own = plain(**batch(), mode='loss')
        torch.manual_seed(5)
        losses = model(**batch(), mode='loss')
        assert set(losses) == {*own, 'loss_dkd', 'loss_nst'}
        torch.testing.assert_close({k: losses[k] for k in own}, own, rtol=0, atol=0)

    def test_a_copy_of_the_teacher_learns_nothing(self):
        teacher = detector(faster_rcnn_cfg())
        model = distill(
            copy.deepcopy(teacher).eval(),
            {**DKD, **NST, **HINT, **AT},
            teacher={'model': teacher, 'optimize': False},
        )
        losses = model(**batch(), mode='loss')
        assert [losses[name].item() for name in ('loss_dkd', 'loss_nst', 'loss_hint', 'loss_at')] == [0.0] * 4

    def test_one_backbone_pass_serves_all_and_heads_rest(self):
        teacher = detector(faster_rcnn_cfg(), 1)
        model = distill(detector(faster_rcnn_cfg()), {**DKD, **NST, **AT, **REVIEW}, teacher=teacher)
        data = batch()
        model.distill.prepare(model, data['inputs'])
        hidden = model.distill.teachers['teacher'].model
        calls = []
        for name in ('backbone', 'neck', 'rpn_head', 'roi_head.bbox_roi_extractor', 'roi_head.bbox_head'):
            hidden.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        model(**data, mode='loss')
        assert calls == ['backbone', 'neck', 'roi_head.bbox_roi_extractor', 'roi_head.bbox_head']

    def test_pass_ends_at_the_last_tap(self):
        model = distill(detector(faster_rcnn_cfg()), NST, teacher=detector(faster_rcnn_cfg(), 1))
        model.distill.prepare(model, batch()['inputs'])
        hidden = model.distill.teachers['teacher'].model
        for name in ('backbone.layer4', 'neck'):
            hidden.get_submodule(name).register_forward_pre_hook(lambda *_: pytest.fail('ran on'))
        assert model(**batch(), mode='loss')['loss_nst'] > 0

    def test_student_runs_each_part_once(self):
        model = distill(detector(faster_rcnn_cfg()), {**DKD, **REVIEW}, teacher=detector(faster_rcnn_cfg(), 1))
        calls = []
        for name in ('backbone', 'neck', 'rpn_head', 'roi_head.bbox_roi_extractor', 'roi_head.bbox_head'):
            model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        model(**batch(), mode='loss')
        assert calls == ['backbone', 'neck', 'rpn_head', 'roi_head.bbox_roi_extractor', 'roi_head.bbox_head']

    def test_taps_on_rpn_and_roi_features(self):
        losses: dict[str, Any] = {
            'loss_rpn': {'type': 'FitNetLoss', 'on': ['rpn_head[0][0]', 'rpn_head[1][2]'], 'regressor': 'identity'},
            'loss_roi': {'type': 'NSTLoss', 'on': 'roi_head.bbox_roi_extractor'},
            'loss_fc': {'type': 'FitNetLoss', 'on': 'roi_head.bbox_head.shared_fcs.1', 'regressor': 'conv'},
        }
        model = distill(detector(faster_rcnn_cfg()), losses, teacher=detector(faster_rcnn_cfg(), 1))
        values = model(**batch(), mode='loss')
        assert all(values[name] > 0 for name in losses)
        total(model, batch()).backward()
        assert model.rpn_head.rpn_cls.weight.grad.abs().sum() > 0

    @pytest.mark.parametrize('size', [(64, 96), (70, 90)])
    def test_sizes_other_than_the_dry_runs(self, size):
        teacher = detector(faster_rcnn_cfg(), 1)
        reference = copy.deepcopy(teacher).eval()
        student = detector(faster_rcnn_cfg())
        seen = []
        student.backbone.layer3.register_forward_hook(lambda _m, _i, output: seen.append(output.detach().clone()))
        model = distill(student, {**DKD, **NST, **REVIEW}, teacher={'model': teacher, 'optimize': False})
        data = batch(size=size)
        seen.clear()
        losses = model(**data, mode='loss')
        assert model.parse_losses(losses)[0].isfinite()
        with torch.no_grad():
            expected = 50 * nst_loss(seen[0], reference.backbone(data['inputs'])[2])
        torch.testing.assert_close(losses['loss_nst'], expected, rtol=1e-4, atol=1e-6)

    def test_sampler_that_runs_the_head_to_mine(self, monkeypatch):
        """OHEM scores all proposals first: RoIs, labels and logits must be those of the pass that is trained."""
        cfg = faster_rcnn_cfg(**{'train_cfg.rcnn.sampler.type': 'OHEMSampler'})
        student, teacher = detector(cfg), detector(faster_rcnn_cfg(), 1)
        reference = copy.deepcopy(teacher).eval()
        model = distill(student, {**DKD, 'loss_roi': {'type': 'NSTLoss', 'on': 'roi_head.bbox_roi_extractor'}},
                        teacher=teacher)  # fmt: skip
        seen = record_training(model, monkeypatch)
        data = batch()
        value = model(**data, mode='loss')['loss_dkd']
        logits, (rois, labels) = [item for item in seen if torch.is_tensor(item)][-1], seen[-1]
        with torch.no_grad():
            scored = reference.roi_head._bbox_forward(reference.extract_feat(data['inputs']), rois)['cls_score']
        torch.testing.assert_close(value, dkd_loss(logits, scored, labels, 1.0, 0.25, 1.0), rtol=1e-4, atol=1e-6)

    def test_without_ground_truth(self):
        model = distill(detector(faster_rcnn_cfg()), {**DKD, **NST, **REVIEW}, teacher=detector(faster_rcnn_cfg(), 1))
        losses = model(**batch(boxes=0), mode='loss')
        assert losses['loss_dkd'] > 0
        value = model.parse_losses(losses)[0]
        value.backward()
        assert value.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    def without_rois(self, model, monkeypatch):
        """The RPN proposes nothing, and there is no ground truth."""
        original = model.rpn_head.loss_and_predict

        def loss_and_predict(*args, **kwargs):
            losses, results = original(*args, **kwargs)
            return losses, [result[:0] for result in results]

        monkeypatch.setattr(model.rpn_head, 'loss_and_predict', loss_and_predict)
        return batch(boxes=0)

    def test_without_rois(self, monkeypatch):
        losses = {**DKD, **REVIEW, 'loss_fc': {'type': 'FitNetLoss', 'on': 'roi_head.bbox_head.shared_fcs.1'}}
        model = distill(detector(faster_rcnn_cfg()), losses, teacher=detector(faster_rcnn_cfg(), 1))
        values = model(**self.without_rois(model, monkeypatch), mode='loss')
        assert values['loss_dkd'] == values['loss_fc'] == 0
        assert values['loss_reviewkd'] > 0
        value = model.parse_losses(values)[0]
        value.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.distill.parameters())
        assert all(b.isfinite().all() for b in model.buffers())

    def test_one_class(self):
        cfg = faster_rcnn_cfg(**{'roi_head.bbox_head.num_classes': 1})
        model = distill(detector(cfg), DKD, teacher=detector(cfg, 1))
        losses = model(**batch(classes=1), mode='loss')
        assert losses['loss_dkd'].isfinite()
        assert losses['loss_dkd'] > 0

    def test_predictions_are_the_students_own(self):
        plain = detector(faster_rcnn_cfg()).eval()
        model = distill(copy.deepcopy(plain), DKD, teacher=detector(faster_rcnn_cfg(), 1)).eval()
        with torch.no_grad():
            a, b = plain(**batch(), mode='predict'), model(**batch(), mode='predict')
        assert all(torch.equal(x.pred_instances.scores, y.pred_instances.scores) for x, y in zip(a, b, strict=True))

    def test_folded_teacher_reads_the_same(self):
        teacher = detector(faster_rcnn_cfg(), 1)
        plain = copy.deepcopy(teacher)
        values, kinds = [], []
        for spec in ({'model': teacher}, {'model': plain, 'optimize': False}):
            model = distill(detector(faster_rcnn_cfg()), {**DKD, **AT}, teacher=spec)
            torch.manual_seed(3)
            losses = model(**batch(), mode='loss')
            values.append(torch.stack([losses['loss_dkd'], losses['loss_at']]))
            kinds.append(type(model.distill.teachers['teacher'].model.backbone.bn1))
        assert kinds == [torch.nn.Identity, torch.nn.BatchNorm2d], 'the first is folded'
        torch.testing.assert_close(*values, rtol=1e-3, atol=1e-6)


class TestOtherTwoStage:
    def test_mask_rcnn(self):
        model = distill(detector(mask_rcnn_cfg()), {**DKD, **NST}, teacher=detector(faster_rcnn_cfg(), 1))
        losses = model(**batch(masks=True), mode='loss')
        assert losses['loss_dkd'] > 0
        assert 'loss_mask' in losses
        with pytest.raises(ValueError, match=r'only the box branch can be tapped'):
            distill(
                detector(mask_rcnn_cfg()),
                {'loss_m': {'type': 'NSTLoss', 'on': 'roi_head.mask_head.conv_logits'}},
                teacher=detector(mask_rcnn_cfg(), 1),
            )

    def test_cascade_stages_have_their_own_rois_and_labels(self, monkeypatch):
        teacher = detector(cascade_rcnn_cfg(), 1)
        reference = copy.deepcopy(teacher).eval()
        losses = {'loss_dkd': {**DKD['loss_dkd'], 'on': [f'roi_head.bbox_head.{i}.fc_cls' for i in range(3)]}}
        model = distill(detector(cascade_rcnn_cfg()), losses, teacher=teacher)
        seen = [record_training(model, monkeypatch, stage) for stage in range(3)]
        data = batch()
        value = model(**data, mode='loss')['loss_dkd']
        expected = torch.zeros(())
        with torch.no_grad():
            features = reference.extract_feat(data['inputs'])
        for stage, (logits, (rois, labels), *_) in enumerate(seen):
            with torch.no_grad():
                scored = reference.roi_head._bbox_forward(stage, features, rois)['cls_score']
            expected = expected + dkd_loss(logits, scored, labels, 1.0, 0.25, 1.0)
        assert not torch.equal(seen[0][1][0], seen[1][1][0])
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)

    def test_cascade_that_runs_out_of_rois(self, monkeypatch):
        losses = {'loss_dkd': {**DKD['loss_dkd'], 'on': 'roi_head.bbox_head.2.fc_cls'}}
        model = distill(detector(cascade_rcnn_cfg()), losses, teacher=detector(cascade_rcnn_cfg(), 1))
        values = model(**TestTwoStage().without_rois(model, monkeypatch), mode='loss')
        assert 'loss_dkd' not in values
        assert model.parse_losses(values)[0].isfinite()

    def test_cascade_teaches_faster_rcnn(self):
        losses = {'loss_dkd': {**DKD['loss_dkd'], 'on': {'student': LOGITS, 'teacher': 'roi_head.bbox_head.1.fc_cls'}}}
        model = distill(detector(faster_rcnn_cfg()), losses, teacher=detector(cascade_rcnn_cfg(), 1))
        assert model(**batch(), mode='loss')['loss_dkd'] > 0

    def test_one_teacher_stage_cannot_score_two_kinds_of_rois(self):
        on = [{'student': f'roi_head.bbox_head.{i}.fc_cls', 'teacher': LOGITS} for i in range(2)]
        with pytest.raises(ValueError, match='which sample different RoIs; choose one'):
            distill(
                detector(cascade_rcnn_cfg()),
                {'loss_dkd': {**DKD['loss_dkd'], 'on': on}},
                teacher=detector(faster_rcnn_cfg(), 1),
            )

    def test_a_later_stage_is_not_gathered(self):
        """It may have no RoIs in one process, for whose rows the others would wait."""

        def distilled(stage, gather):
            loss = {'type': 'DISTLoss', 'on': f'roi_head.bbox_head.{stage}.fc_cls', 'gather': gather}
            return distill(detector(cascade_rcnn_cfg()), {'loss_dist': loss}, teacher=detector(cascade_rcnn_cfg(), 1))

        with pytest.raises(ValueError, match=r'reads a later stage of a cascade.*give gather=False'):
            distilled(1, True)
        for stage, gather in ((0, True), (1, False)):
            assert distilled(stage, gather)(**batch(), mode='loss')['loss_dist'] > 0

    def test_stage_must_be_named(self):
        with pytest.raises(ValueError, match=r'has 3 stages, and each samples RoIs of its own: name one'):
            distill(
                detector(cascade_rcnn_cfg()),
                {'loss_nst': {'type': 'NSTLoss', 'on': 'roi_head.bbox_roi_extractor'}},
                teacher=detector(cascade_rcnn_cfg(), 1),
            )


class TestOneStage:
    @pytest.mark.parametrize('kind', ['RetinaNet', 'FCOS', 'GFL'])
    def test_feature_taps(self, kind):
        on = ['neck[0]', 'neck[3]']
        losses = {'loss_at': {'type': 'ATLoss', 'on': on}, 'loss_reviewkd': {'type': 'ReviewKDLoss', 'on': on}}
        model = distill(detector(one_stage_cfg(kind)), losses, teacher=detector(one_stage_cfg(kind), 1))
        total(model, batch()).backward()
        assert model.backbone.conv1.weight.grad.isfinite().all()

    @pytest.mark.parametrize('kind', ['RetinaNet', 'FCOS', 'GFL'])
    def test_a_copy_of_the_teacher_learns_nothing(self, kind):
        teacher = detector(one_stage_cfg(kind), 1)
        on = ['neck[0]', 'neck[3]']
        losses = {'loss_at': {'type': 'ATLoss', 'on': on}, 'loss_nst': {'type': 'NSTLoss', 'on': on}}
        model = distill(copy.deepcopy(teacher).eval(), losses, teacher={'model': teacher, 'optimize': False})
        values = model(**batch(), mode='loss')
        assert (values['loss_at'], values['loss_nst']) == (0, 0)

    def test_head_outputs(self):
        losses = {'loss_head': {'type': 'FitNetLoss', 'on': 'bbox_head[0][1]', 'regressor': 'conv'}}
        model = distill(detector(one_stage_cfg('RetinaNet')), losses, teacher=detector(one_stage_cfg('RetinaNet'), 1))
        assert model(**batch(), mode='loss')['loss_head'] > 0

    def test_two_stage_teacher_of_features(self):
        losses = {'loss_nst': {'type': 'NSTLoss', 'on': 'backbone.layer3'}}
        model = distill(detector(one_stage_cfg('RetinaNet')), losses, teacher=detector(faster_rcnn_cfg(), 1))
        assert model(**batch(), mode='loss')['loss_nst'] > 0

    def test_logits_are_refused(self):
        for loss in (
            {'type': 'DKDLoss', 'on': 'bbox_head.retina_cls'},
            {'type': 'KDLoss', 'on': 'bbox_head[0][0]'},
            {'type': 'KDLoss', 'on': 'neck[0]'},
        ):
            with pytest.raises(ValueError, match='of a detector, RoIs are classified in'):
                distill(
                    detector(one_stage_cfg('RetinaNet')), {'loss_x': loss},
                    teacher=detector(one_stage_cfg('RetinaNet'), 1),
                )  # fmt: skip

    def test_a_module_that_runs_once_for_each_level_is_refused(self):
        loss = {'type': 'ATLoss', 'on': 'bbox_head.retina_cls'}
        with pytest.raises(ValueError, match=r"runs 5 times .* as in 'bbox_head\[0\]\[2\]'"):
            distill(
                detector(one_stage_cfg('RetinaNet')), {'loss_x': loss}, teacher=detector(one_stage_cfg('RetinaNet'), 1)
            )

    def test_outputs_that_differ_in_training(self):
        """FCOS multiplies its boxes by the stride in evaluation mode alone."""
        cfg = one_stage_cfg('FCOS')
        cfg['bbox_head']['norm_on_bbox'] = True
        with pytest.raises(ValueError, match=r"'bbox_head\[1\]\[1\]' of the student has other values in training"):
            distill(detector(cfg), {'loss_x': {'type': 'FitNetLoss', 'on': 'bbox_head[1][1]', 'regressor': 'identity'}},
                    teacher=detector(cfg, 1))  # fmt: skip

    def test_channels_of_detectors_whose_first_convolution_sees_other_ones(self):
        cfg = read_config('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py')[0].model.to_dict()
        cfg['data_preprocessor'].pop('batch_augments', None)
        models = [detector(cfg), detector(cfg, 1)]
        assert distill(models[0], {'loss_at': {'type': 'ATLoss', 'on': 'neck[1]'}}, teacher=models[1]) is models[0]


class TestMistakes:
    def test_classifier_with_columns_of_its_own(self):
        seesaw = {'type': 'SeesawLoss', 'p': 0.8, 'q': 2.0, 'num_classes': 10}
        cfg = faster_rcnn_cfg()
        cfg['roi_head']['bbox_head']['loss_cls'] = seesaw
        with pytest.raises(ValueError, match='SeesawLoss adds its own'):
            distill(detector(cfg), DKD, teacher=detector(cfg, 1))

    def test_boxes_are_no_classes(self):
        losses = {'loss_dkd': {**DKD['loss_dkd'], 'on': 'roi_head.bbox_head.fc_reg'}}
        with pytest.raises(ValueError, match=r"fc_reg' of the student reads none: on='roi_head.bbox_head.fc_cls'"):
            distill(detector(faster_rcnn_cfg()), losses, teacher=detector(faster_rcnn_cfg(), 1))

    def test_head_that_takes_optional_features(self, monkeypatch):
        student = detector(cascade_rcnn_cfg())

        def bbox_forward(stage, x, rois, semantic_feat=None):
            pytest.fail('ran')

        monkeypatch.setattr(student.roi_head, '_bbox_forward', bbox_forward)
        losses = {'loss_dkd': {**DKD['loss_dkd'], 'on': 'roi_head.bbox_head.0.fc_cls'}}
        with pytest.raises(ValueError, match=r"takes \['stage', 'x', 'rois', 'semantic_feat'\], expected"):
            distill(student, losses, teacher=detector(cascade_rcnn_cfg(), 1))

    def test_copies_of_images_that_the_teacher_does_not_make(self, monkeypatch):
        model = distill(detector(faster_rcnn_cfg()), DKD, teacher=detector(faster_rcnn_cfg(), 1))
        original = model.roi_head._bbox_forward
        monkeypatch.setattr(
            model.roi_head, '_bbox_forward', lambda x, rois: original([torch.cat([m, m, m]) for m in x], rois)
        )
        with pytest.raises(RuntimeError, match='read 6 feature maps for 2 images'):
            model(**batch(), mode='loss')

    def test_place_that_is_not_run(self):
        losses = {'loss_x': {'type': 'NSTLoss', 'on': 'roi_head.bbox_head.loss_cls'}}
        with pytest.raises(ValueError, match='cannot be tapped: of a FasterRCNN only the backbone'):
            distill(detector(faster_rcnn_cfg()), losses, teacher=detector(faster_rcnn_cfg(), 1))

    def test_one_stage_teacher_has_no_rois(self):
        with pytest.raises(ValueError, match=r"teacher \(RetinaNet\) has no module 'roi_head.bbox_head.fc_cls'"):
            distill(detector(faster_rcnn_cfg()), DKD, teacher=detector(one_stage_cfg('RetinaNet'), 1))

    def test_other_class_set(self):
        teacher = detector(faster_rcnn_cfg(**{'roi_head.bbox_head.num_classes': 7}), 1)
        with pytest.raises(ValueError, match=r'\(8, 11\).*\(8, 8\).*use a teacher trained on the same class set'):
            distill(detector(faster_rcnn_cfg()), DKD, teacher=teacher)

    def test_rois_against_images(self):
        with pytest.raises(ValueError, match='some have a row for each RoI, others for each image'):
            distill(
                detector(faster_rcnn_cfg()),
                {'loss_x': {'type': 'NSTLoss', 'on': {'student': 'roi_head.bbox_roi_extractor', 'teacher': 'neck[0]'}}},
                teacher=detector(faster_rcnn_cfg(), 1),
            )

    def test_one_level_where_all_were_meant(self):
        with pytest.raises(ValueError, match=r"'rpn_head.rpn_conv' of the student runs 4 times .*'rpn_head\[0\]\[2\]'"):
            distill(detector(faster_rcnn_cfg()), {'loss_x': {'type': 'NSTLoss', 'on': 'rpn_head.rpn_conv'}},
                    teacher=detector(faster_rcnn_cfg(), 1))  # fmt: skip

    def test_index_into_nothing(self):
        with pytest.raises((ValueError, TypeError), match=r"'neck' meets a sequence of 4.*'neck\[0\]' ... 'neck\[3\]'"):
            distill(detector(faster_rcnn_cfg()), {'loss_x': {'type': 'NSTLoss', 'on': 'neck'}},
                    teacher=detector(faster_rcnn_cfg(), 1))  # fmt: skip

    def test_head_that_takes_more_than_rois(self):
        with DefaultScope.overwrite_default_scope('mmdet'):
            cfg = read_config('mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py')[0].model
            cfg['backbone']['init_cfg'] = None
            models = [MODELS.build(copy.deepcopy(cfg)) for _ in range(2)]
        on = 'roi_head.bbox_head.0.fc_cls'
        with pytest.raises(ValueError, match=r'expected .* as in StandardRoIHead'):
            distill(models[0], {'loss_dkd': {**DKD['loss_dkd'], 'on': on}}, teacher=models[1])


def test_autocast():
    model = distill(detector(faster_rcnn_cfg()), {**DKD, **NST, **REVIEW}, teacher=detector(faster_rcnn_cfg(), 1))
    model.distill.prepare(model, batch()['inputs'])
    halves = []
    for network in (model, model.distill.teachers['teacher'].model):
        for name in ('neck', 'rpn_head.rpn_cls', 'rpn_head.rpn_reg', 'roi_head.bbox_head.fc_reg'):
            # mmcv's RoIAlign and NMS for CPUs know float32 alone
            network.get_submodule(name).register_forward_hook(
                lambda _m, _i, o: tuple(x.float() for x in o) if isinstance(o, tuple) else o.float()
            )
        network.roi_head.bbox_head.fc_cls.register_forward_hook(lambda _m, _i, o: halves.append(o.dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(**batch(), mode='loss')
    assert halves == [torch.bfloat16] * 2
    assert all(losses[name].dtype == torch.float32 for name in ('loss_dkd', 'loss_nst', 'loss_reviewkd'))
    assert model.parse_losses(losses)[0].isfinite()


def test_folded_teacher_predicts_the_same_as_a_whole():
    """TeacherEvalHook runs all of it: RoIAlign must not read channels_last memory as if it were contiguous."""
    teacher = detector(faster_rcnn_cfg(**{'test_cfg.rcnn.score_thr': 0.0}), 1)
    reference = copy.deepcopy(teacher).eval()
    model = distill(detector(faster_rcnn_cfg()), DKD, teacher=teacher)
    data = batch()
    model.distill.prepare(model, data['inputs'])
    hidden = model.distill.teachers['teacher'].model
    assert isinstance(hidden.backbone.bn1, torch.nn.Identity)
    with torch.no_grad():
        a = reference(copy.deepcopy(data)['inputs'], copy.deepcopy(data)['data_samples'], mode='predict')
        b = hidden(copy.deepcopy(data)['inputs'], copy.deepcopy(data)['data_samples'], mode='predict')
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.pred_instances.scores, y.pred_instances.scores, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(x.pred_instances.bboxes, y.pred_instances.bboxes, rtol=1e-2, atol=0.1)


def test_images_of_the_dry_run_are_as_the_detector_pads_them():
    cfg = faster_rcnn_cfg()
    cfg['data_preprocessor'] = {**cfg['data_preprocessor'], 'pad_size_divisor': 64}
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = distill(detector(cfg), NST, teacher=detector(cfg, 1))
    assert model.distill.teachers['teacher']._input_shape[2:] == (256, 256)


def test_ssd_is_tried_on_the_size_of_its_anchors():
    cfg, _ = read_config('mmdet::ssd/ssd300_coco.py')
    shown = dict(cfg.model)
    shown['backbone'] = {**shown['backbone'], 'init_cfg': None}
    with DefaultScope.overwrite_default_scope('mmdet'):
        student, teacher = (MODELS.build(copy.deepcopy(shown)) for _ in range(2))
        model = distill(student, {'loss_hint': {'type': 'FitNetLoss', 'on': 'neck[0]'}}, teacher=teacher)
    assert model.distill.teachers['teacher']._input_shape[2:] == (300, 300)


@pytest.mark.parametrize(('smallest', 'expected'), [(0, 224), (300, 320), (1025, None)])
def test_larger_images_are_tried_before_somebody_is_asked(monkeypatch, smallest, expected):
    cfg = faster_rcnn_cfg()
    with DefaultScope.overwrite_default_scope('mmdet'):
        student, teacher = detector(cfg), detector(cfg, 1)
        whole = teacher.extract_feat

        def extract_feat(images):
            if images.size(2) < smallest:
                raise RuntimeError('too small')
            return whole(images)

        monkeypatch.setattr(teacher, 'extract_feat', extract_feat)
        if expected is None:
            with pytest.raises(
                ValueError, match=r'teacher .* \(2, 3, 224, 224\) failed: too small. If it takes another'
            ):
                distill(student, NST, teacher=teacher)
        else:
            model = distill(student, NST, teacher=teacher)
            assert model.distill.teachers['teacher']._input_shape[2:] == (expected, expected)


def test_what_predicts_masks_alone_has_a_backbone_and_a_neck():
    cfg, _ = read_config('mmdet::solo/solo_r50_fpn_1x_coco.py')
    shown = dict(cfg.model)
    shown['backbone'] = {**shown['backbone'], 'depth': 18, 'init_cfg': None}
    shown['neck'] = {**shown['neck'], 'in_channels': [64, 128, 256, 512]}
    with DefaultScope.overwrite_default_scope('mmdet'):
        student, teacher = (MODELS.build(copy.deepcopy(shown)) for _ in range(2))
        distill(student, {'loss_hint': {'type': 'FitNetLoss', 'on': 'neck[2]'}}, teacher=teacher)
