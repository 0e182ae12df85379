"""Dense heads of mmdet: their grids, losses that compare them in a student's own pass, and what cannot be compared."""

import copy
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope

from mmkd_plugin import distill
from mmkd_plugin.losses import LDLoss, sigmoid_kd_loss
from mmkd_plugin.networks import Tap, network_of
from tests.detection import batch, detector, faster_rcnn_cfg, one_stage_cfg, total

pytestmark = pytest.mark.openmmlab

SCORES = [f'bbox_head[0][{i}]' for i in range(5)]
SIDES = [f'bbox_head[{o}][{i}]' for o in (0, 1) for i in range(5)]
NECK = [f'neck[{i}]' for i in range(5)]


def rtmdet_cfg() -> dict[str, Any]:
    """The narrowest, of ten classes."""
    from mmkd_plugin.files.configs import read_config

    model: dict[str, Any] = read_config('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')[0].model.to_dict()
    model['backbone'].update(widen_factor=0.125, init_cfg=None)
    model['neck'].update(in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1)
    model['bbox_head'].update(in_channels=32, feat_channels=32, num_classes=10)
    model['data_preprocessor']['batch_augments'] = None
    return model


def cfg_of(kind: str, **head: Any) -> dict[str, Any]:
    cfg = rtmdet_cfg() if kind == 'RTMDet' else one_stage_cfg(kind)
    cfg['bbox_head'].update(head)
    return cfg


def distilled(losses: Any, student: Any, teacher: Any) -> Any:
    return distill(detector(student), losses, teacher=detector(teacher, 1)).train()


def copied(cfg: Any, losses: Any) -> Any:
    """A student in evaluation mode, and itself as its teacher."""
    teacher = detector(cfg)
    return distill(copy.deepcopy(teacher).eval(), losses, teacher={'model': teacher, 'optimize': False})


def levels(kind: str, outputs: tuple[int, ...] = (0,)) -> list[str]:
    return [f'bbox_head[{o}][{i}]' for o in outputs for i in range(3 if kind == 'RTMDet' else 5)]


@pytest.mark.parametrize('kind', ['RetinaNet', 'FCOS', 'GFL', 'ATSS', 'RTMDet'])
class TestScores:
    def test_the_loss_is_that_of_both_heads_outputs(self, kind):
        losses = {
            'loss_kd': {'type': 'DenseKDLoss', 'on': levels(kind), 'temperature': 2.0},
            'loss_few': {'type': 'QFLKDLoss', 'on': levels(kind), 'positions': 'positive'},
        }
        model = distilled(losses, cfg_of(kind), cfg_of(kind))
        told: list[Any] = []
        model.bbox_head.loss_cls.register_forward_pre_hook(lambda module, args: told.append(args))
        data = batch()
        found = model(**copy.deepcopy(data), mode='loss')
        assert found['loss_few'] > 0
        scores = torch.cat([args[0] for args in told])
        labels = torch.cat([args[1][0] if isinstance(args[1], tuple) else args[1] for args in told])
        positives = int((labels < 10).sum())
        assert positives > 1
        teacher = detector(cfg_of(kind), 1).eval()
        with torch.no_grad():
            outputs = teacher.bbox_head(teacher.extract_feat(data['inputs']))[0]
        taught = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, 10) for level in outputs])
        expected = sigmoid_kd_loss(scores, taught, 2.0) / positives
        torch.testing.assert_close(found['loss_kd'], expected, rtol=1e-4, atol=1e-6)
        here = labels < 10
        q_t, q_s = taught[here].sigmoid(), scores[here].sigmoid()
        entropy = -(q_t * q_s.log() + (1 - q_t) * (1 - q_s).log())
        torch.testing.assert_close(
            found['loss_few'], ((q_t - q_s).square() * entropy).sum() / positives, rtol=1e-4, atol=1e-6
        )

    def test_a_copy_of_the_teacher_learns_nothing(self, kind):
        losses = {
            'loss_kd': {'type': 'DenseKDLoss', 'on': levels(kind)},
            'loss_qfl': {'type': 'QFLKDLoss', 'on': levels(kind)},
            'loss_bckd': {'type': 'BCKDLoss', 'on': 'bbox_head'},
            'loss_pkd': {'type': 'PKDLoss', 'on': NECK[: len(levels(kind))]},
            'loss_cwd': {'type': 'CWDLoss', 'on': NECK[: len(levels(kind))]},
            'loss_fgd': {'type': 'FGDLoss', 'on': NECK[: len(levels(kind))]},
        }
        model = copied(cfg_of(kind), losses)
        found = model(**batch(), mode='loss')
        assert {name: found[name].item() for name in losses} == dict.fromkeys(losses, 0.0)


class TestDistributions:
    def test_the_loss_is_mmdets(self):
        """LDHead computes the same of the same outputs."""
        cfg = cfg_of('GFL')
        model = distilled({'loss_ld': {'type': 'LDLoss', 'on': SIDES}}, cfg, cfg)
        data = batch()
        found = model(**copy.deepcopy(data), mode='loss')['loss_ld']
        head = {**copy.deepcopy(cfg['bbox_head']), 'type': 'LDHead'}
        head['loss_ld'] = {'type': 'KnowledgeDistillationKLDivLoss', 'loss_weight': 0.25, 'T': 10}
        train_cfg, test_cfg = ConfigDict(cfg['train_cfg']), ConfigDict(cfg['test_cfg'])
        with DefaultScope.overwrite_default_scope('mmdet'):
            theirs = MODELS.build(ConfigDict(head, train_cfg=train_cfg, test_cfg=test_cfg))
        theirs.load_state_dict(model.bbox_head.state_dict())
        teacher = detector(cfg, 1).eval()
        with torch.no_grad():
            soft = teacher.bbox_head(teacher.extract_feat(data['inputs']))
            expected = theirs.loss(model.extract_feat(data['inputs']), soft, data['data_samples'])['loss_ld']
        assert found.item() > 0
        torch.testing.assert_close(found, sum(expected), rtol=1e-4, atol=1e-6)

    def test_the_valuable_region_is_told_the_heads_anchors(self):
        cfg = cfg_of('GFL')
        losses = {
            'loss_main': {'type': 'LDLoss', 'on': SIDES},
            'loss_both': {'type': 'LDLoss', 'on': SIDES, 'valuable_weight': 1.0},
        }
        model = distilled(losses, cfg, cfg)
        found = model(**batch(), mode='loss')
        assert found['loss_both'] > found['loss_main'] > 0
        grid = model.distill.losses['loss_both'][0].grid
        sizes = [(12, 12), (6, 6), (3, 3), (2, 2), (1, 1)]
        anchors = grid.anchors(sizes, torch.zeros(1))
        assert torch.equal(anchors[0][13], torch.tensor([8.0 - 32, 8.0 - 32, 8.0 + 32, 8.0 + 32]))
        assert [len(level) for level in anchors] == [144, 36, 9, 4, 1]

    def test_a_copy_of_the_teacher_learns_nothing_and_the_gradient_reaches_sides_only(self):
        cfg = cfg_of('GFL')
        model = copied(cfg, {'loss_ld': {'type': 'LDLoss', 'on': SIDES, 'valuable_weight': 1.0}})
        assert model(**batch(), mode='loss')['loss_ld'] == 0
        model = distilled({'loss_ld': {'type': 'LDLoss', 'on': SIDES}}, cfg, cfg)
        model(**batch(), mode='loss')['loss_ld'].backward()
        assert model.bbox_head.gfl_reg.weight.grad.any()
        assert model.bbox_head.gfl_cls.weight.grad is None


def test_masks_are_those_of_the_batch(monkeypatch):
    """FGD through a whole detector: other boxes give another loss."""
    losses = {'loss_fgd': {'type': 'FGDLoss', 'on': NECK, 'alpha': 1.0, 'beta': 0.0, 'gamma': 0.0, 'lam': 0.0}}
    model = distilled(losses, cfg_of('RetinaNet'), cfg_of('RetinaNet'))
    data = batch()
    first = model(**copy.deepcopy(data), mode='loss')['loss_fgd']
    for sample in data['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    assert first > 0
    assert model(**data, mode='loss')['loss_fgd'] == 0


@pytest.mark.parametrize('kind', ['RetinaNet', 'FCOS', 'GFL'])
@pytest.mark.parametrize('loss', ['CWDLoss', 'FGDLoss', 'MGDLoss', 'PKDLoss'])
def test_a_two_stage_teacher(kind, loss):
    """Its P3 to P5 are levels 1 to 3; the student learns from them, and a checkpoint of it is a plain one."""
    on = {'student': ['neck[0]', 'neck[1]', 'neck[2]'], 'teacher': ['neck[1]', 'neck[2]', 'neck[3]']}
    wider = faster_rcnn_cfg(**{'neck.out_channels': 48, 'rpn_head.in_channels': 48})
    wider['roi_head']['bbox_roi_extractor']['out_channels'] = wider['roi_head']['bbox_head']['in_channels'] = 48
    model = distilled({'loss_x': {'type': loss, 'on': on}}, cfg_of(kind), wider)
    value = total(model, batch())
    value.backward()
    assert all(p.grad is not None for p in model.distill.parameters())
    plain = detector(cfg_of(kind))
    state = {name: value for name, value in model.state_dict().items() if not name.startswith('distill')}
    plain.load_state_dict(state, strict=True)


class TestRefusals:
    @pytest.mark.parametrize(
        ('student', 'teacher', 'told'),
        [
            (cfg_of, lambda: cfg_of('RetinaNet', num_classes=9), r'the classes: 10 and 9'),
            (cfg_of, lambda: cfg_of('GFL'), r'the anchors of a place: 9 and 1'),
            (
                cfg_of,
                lambda: cfg_of('RetinaNet', anchor_generator={
                    'type': 'AnchorGenerator', 'octave_base_scale': 4, 'scales_per_octave': 3, 'ratios': [0.5, 1, 3],
                    'strides': [8, 16, 32, 64, 128],
                }),
                'the anchors themselves',
            ),
            (
                cfg_of,
                lambda: cfg_of('RetinaNet', anchor_generator={
                    'type': 'AnchorGenerator', 'octave_base_scale': 4, 'scales_per_octave': 3, 'ratios': [0.5, 1, 2],
                    'strides': [8, 16, 32, 64, 100],
                }),
                r'the strides of levels: \[8, 16, 32, 64, 128\] and \[8, 16, 32, 64, 100\]',
            ),
            (lambda kind: cfg_of('GFL'), lambda: cfg_of('FCOS'), 'where in its cell a place lies: 0 and 0.5'),
        ],
    )  # fmt: skip
    def test_other_grids(self, student, teacher, told):
        with pytest.raises(ValueError, match=told) as error:
            distilled({'loss_kd': {'type': 'DenseKDLoss', 'on': SCORES}}, student('RetinaNet'), teacher())
        assert 'Compare the necks by a feature loss' in str(error.value)

    def test_other_bins(self):
        with pytest.raises(ValueError, match=r'the bins of a distribution: 17 and 9 \(reg_max \+ 1\)'):
            distilled({'loss_ld': {'type': 'LDLoss', 'on': SIDES}}, cfg_of('GFL'), cfg_of('GFL', reg_max=8))

    @pytest.mark.parametrize(
        ('loss', 'on', 'told'),
        [
            ('DenseKDLoss', SCORES[:4], r"on=\[f'bbox_head\[0\]\[\{i\}\]' for i in range\(5\)\]"),
            ('DenseKDLoss', SCORES[::-1], 'at all of its levels'),
            ('DenseKDLoss', SIDES[5:], 'compares the scores of a dense head'),
            ('DenseKDLoss', [f'bbox_head.retina_cls@{i}' for i in range(5)], 'at all of its levels'),
            ('DenseKDLoss', NECK, r"'neck\[0\]' of the student lies in none"),
            ('LDLoss', SCORES, r'for o in \(0, 1\) for i in range\(5\)'),
            ('LDLoss', SIDES, 'RetinaHead puts out numbers'),
        ],
    )
    def test_other_taps(self, loss, on, told):
        with pytest.raises(ValueError, match=told):
            distilled({'loss_x': {'type': loss, 'on': on}}, cfg_of('RetinaNet'), cfg_of('RetinaNet'))

    def test_softmax(self):
        cfg = cfg_of('RetinaNet', loss_cls={'type': 'CrossEntropyLoss', 'use_sigmoid': False})
        with pytest.raises(ValueError, match="the student's RetinaHead is trained by a softmax over classes"):
            distilled({'loss_kd': {'type': 'DenseKDLoss', 'on': SCORES}}, cfg, cfg)

    def test_heads_that_assign_image_by_image(self):
        model = detector(cfg_of('ATSS'))
        model.bbox_head.__class__ = type('PAAHead', (type(model.bbox_head),), {})
        with pytest.raises(ValueError, match='PAAHead assigns image by image'):
            network_of(model).dense_grid([Tap.parse(path) for path in SCORES], ('scores',), 'loss')

    def test_rois_have_no_boxes(self):
        cfg = faster_rcnn_cfg()
        losses = {'loss_fgd': {'type': 'FGDLoss', 'on': 'roi_head.bbox_roi_extractor'}}
        with pytest.raises(ValueError, match='knows something of each whole image, or its columns'):
            distilled(losses, cfg, cfg)

    def test_classifiers(self, student, teacher):
        with pytest.raises(ValueError, match=r"'head\.fc' of the student lies in none"):
            distill(student, {'loss_kd': {'type': 'DenseKDLoss', 'on': 'head.fc'}}, teacher=teacher)


def test_a_head_with_no_classification_loss_of_its_own():
    """SSD's, which computes it by a function."""
    student, teacher = detector(cfg_of('RetinaNet')), detector(cfg_of('RetinaNet'))
    del student.bbox_head.loss_cls
    student.bbox_head.use_sigmoid_cls = False
    with pytest.raises(ValueError, match="the student's RetinaHead is trained by a softmax over classes"):
        distill(student, {'loss_kd': {'type': 'DenseKDLoss', 'on': SCORES}}, teacher=teacher)


def test_what_goes_through_a_teacher():
    """The student's last features through the teacher's last layer: compared with the teacher's own scores."""
    losses = {
        'loss_kd': {
            'type': 'QFLKDLoss',
            'on': {'student': [f'bbox_head.cls_convs.0@{i}' for i in range(5)], 'teacher': SCORES},
            'through': [f'bbox_head.cls_convs.0@{i}' for i in range(5)],
        }
    }
    model = distilled(losses, cfg_of('GFL'), cfg_of('GFL'))
    value = model(**batch(), mode='loss')['loss_kd']
    assert value > 0
    value.backward()
    assert model.bbox_head.cls_convs[0].conv.weight.grad.any()
    assert model.bbox_head.gfl_cls.weight.grad is None


def test_centerness():
    """Background is told by the classes, and not by the one column."""
    on = [f'bbox_head[2][{i}]' for i in range(5)]
    losses = {'loss_kd': {'type': 'DenseKDLoss', 'on': on, 'positions': 'positive'}}
    model = distilled(losses, cfg_of('ATSS'), cfg_of('ATSS'))
    assert model.distill.losses['loss_kd'][0].grid.classes == 10
    assert model(**batch(), mode='loss')['loss_kd'] > 0
    assert LDLoss.grid is None
