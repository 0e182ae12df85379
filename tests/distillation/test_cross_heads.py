"""CrossKD through whole detectors: against the teacher's later layers called one by one."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkd_plugin import distill
from tests.detection import batch, detector, one_stage_cfg

pytestmark = pytest.mark.openmmlab

KINDS = ['RetinaNet', 'FCOS', 'GFL', 'ATSS']
#: What scores and boxes come from, of each head.
LAST = {
    'RetinaNet': ('retina_cls', 'retina_reg'), 'FCOS': ('conv_cls', 'conv_reg'), 'GFL': ('gfl_cls', 'gfl_reg'),
    'ATSS': ('atss_cls', 'atss_reg'),
}  # fmt: skip


def cfg_of(kind: str, **head: Any) -> dict[str, Any]:
    cfg = one_stage_cfg(kind)
    cfg['bbox_head'].update(stacked_convs=3, **head)
    return cfg


def cross(**arguments: Any) -> dict[str, Any]:
    return {'loss_cross': {'type': 'CrossKDLoss', 'on': 'bbox_head', 'cut': 2, **arguments}}


def later_layers(kind: str, head: Any, level: int, features: tuple[Tensor, Tensor], cut: int) -> tuple[Tensor, Tensor]:
    """What a head makes of what both branches have after some convolutions, layer by layer."""
    found = []
    for convs, last, own in zip((head.cls_convs, head.reg_convs), LAST[kind], features, strict=True):
        for conv in convs[cut:]:
            own = conv.activate(conv.norm(conv.conv(own)) if conv.with_norm else conv.conv(own))
        found.append(getattr(head, last)(own))
    if kind != 'RetinaNet':
        found[1] = found[1] * head.scales[level].scale
    return found[0], found[1].exp() if kind == 'FCOS' else found[1]


def decoded(kind: str, head: Any, levels: list[Tensor]) -> Tensor:
    """By mmdet, level by level, as its own losses do it."""
    boxes = []
    sizes = [level.shape[2:] for level in levels]
    grid = head.prior_generator.grid_priors(sizes, device='cpu')
    for number, (level, places) in enumerate(zip(levels, grid, strict=True)):
        rows = level.permute(0, 2, 3, 1).reshape(len(level), -1, 68 if kind == 'GFL' else 4)
        for row in rows:
            if kind == 'GFL':
                stride = head.prior_generator.strides[number][0]
                center = head.anchor_center(places) / stride
                boxes.append(head.bbox_coder.decode(center, head.integral(row)) * stride)
            else:
                boxes.append(head.bbox_coder.decode(places, row))
    return torch.cat(boxes)


def giou(a: Tensor, b: Tensor) -> Tensor:
    from mmdet.structures.bbox import bbox_overlaps

    return bbox_overlaps(a, b, mode='giou', is_aligned=True, eps=1e-6)


def flat(levels: list[Tensor], columns: int) -> Tensor:
    return torch.cat([level.permute(0, 2, 3, 1).reshape(-1, columns) for level in levels])


@pytest.mark.parametrize(
    ('kind', 'boxes'), [*((kind, 'giou') for kind in KINDS), ('GFL', 'distributions'), ('FCOS', 'none')]
)
def test_value_and_gradient_are_those_of_the_teachers_later_layers(kind, boxes):
    cfg = cfg_of(kind)
    model = distill(detector(cfg), cross(boxes=boxes, box_weight=3.0), teacher=detector(cfg, 1)).train()
    data, plain, told = batch(), detector(cfg).train(), []
    model.bbox_head.loss_cls.register_forward_pre_hook(lambda module, args: told.append(args[1]))
    found = model(**copy.deepcopy(data), mode='loss')['loss_cross']
    labels = torch.cat([label[0] if isinstance(label, tuple) else label for label in told])
    found.backward()

    teacher = detector(cfg, 1).eval()
    with torch.no_grad():
        scores, numbers = teacher.bbox_head(teacher.extract_feat(data['inputs']))[:2]
    crossed: tuple[list[Tensor], list[Tensor]] = [], []
    for level, feature in enumerate(plain.extract_feat(data['inputs'])):
        cls = reg = feature
        for number in (0, 1):
            cls, reg = plain.bbox_head.cls_convs[number](cls), plain.bbox_head.reg_convs[number](reg)
        for mine, value in zip(crossed, later_layers(kind, teacher.bbox_head, level, (cls, reg), 2), strict=True):
            mine.append(value)
    z, t = flat(crossed[0], 10), flat(scores, 10)
    q, p = t.sigmoid(), z.sigmoid()
    positive = labels < 10
    entropy = -(q * torch.nn.functional.logsigmoid(z) + (1 - q) * torch.nn.functional.logsigmoid(-z))
    expected = ((q - p).abs() * entropy).sum() / positive.sum()
    if boxes != 'none':
        weights = q.amax(1)[positive]
        if boxes == 'giou':
            apart = 1 - giou(*(decoded(kind, teacher.bbox_head, side)[positive] for side in (crossed[1], numbers)))
        else:
            log_s, log_t = (flat(side, 68)[positive].view(-1, 4, 17).log_softmax(2) for side in (crossed[1], numbers))
            apart = (log_t.exp() * (log_t - log_s)).sum(2).mean(1)
        expected = expected + 3 * (weights * apart).sum() / weights.sum().clamp_min(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    expected.backward()
    own = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        gradients = own[name].grad, parameter.grad
        assert (gradients[0] is None) == (gradients[1] is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(*gradients, rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize('kind', KINDS)
def test_the_gradient_reaches_what_is_shared_and_nothing_of_the_teacher(kind):
    teacher = detector(cfg_of(kind), 1)
    before = copy.deepcopy(teacher.state_dict())
    model = distill(detector(cfg_of(kind)), cross(), teacher=teacher).train()
    model(**batch(), mode='loss')['loss_cross'].backward()
    head = model.bbox_head
    for convs in (head.cls_convs, head.reg_convs):
        assert all(p.grad.any() for conv in convs[:2] for p in conv.parameters())
        assert all(p.grad is None for p in convs[2].parameters())
    assert all(p.grad is None for last in LAST[kind] for p in getattr(head, last).parameters())
    assert model.backbone.layer4[1].conv2.weight.grad.any()
    source = model.distill.sources['teacher'].model
    assert all(p.grad is None and not p.requires_grad for p in source.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize('kind', KINDS)
def test_a_copy_of_the_teacher_learns_nothing(kind):
    teacher = detector(cfg_of(kind))
    for cut in (0, 3):
        student = copy.deepcopy(teacher).eval()
        model = distill(student, cross(cut=cut), teacher={'model': copy.deepcopy(teacher), 'optimize': False})
        assert model(**batch(), mode='loss')['loss_cross'].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_only_the_teachers_head_runs_again(kind):
    """Its backbone once in a step; before the cut, the second run of the head sees maps of 2x2."""
    model = distill(detector(cfg_of(kind)), cross(), teacher=detector(cfg_of(kind), 1)).train()
    model(**batch(), mode='loss')
    source = model.distill.sources['teacher'].model
    seen: list[Any] = []
    source.backbone.register_forward_pre_hook(lambda module, args: seen.append('backbone'))
    for name, conv in (('before', source.bbox_head.cls_convs[0]), ('after', source.bbox_head.cls_convs[2])):
        conv.register_forward_pre_hook(lambda module, args, name=name: seen.append((name, args[0].shape[2])))
    model(**batch(), mode='loss')
    assert seen.count('backbone') == 1
    sides = [12, 6, 3, 2, 1]
    assert [size for item in seen if item[0] == 'before' for size in item[1:]] == [*sides, *[2] * 5]
    assert [size for item in seen if item[0] == 'after' for size in item[1:]] == sides * 2


def test_a_head_whose_branches_meet_runs_whole():
    """A short run that gives something else is noticed, and not taken."""
    teacher = detector(cfg_of('RetinaNet'), 1)
    own = type(teacher.bbox_head)

    class Meeting(own):  # type: ignore[valid-type, misc]
        def forward_single(self, x: Tensor) -> Any:
            scores, boxes = super().forward_single(x)
            return scores + x.mean(), boxes

    teacher.bbox_head.__class__ = Meeting
    model = distill(detector(cfg_of('RetinaNet')), cross(), teacher=teacher).train()
    seen: list[int] = []
    model(**batch(), mode='loss')
    model.distill.sources['teacher'].model.backbone.register_forward_pre_hook(lambda module, args: seen.append(1))
    model(**batch(), mode='loss')
    assert len(seen) == 2


def test_a_head_with_convolutions_for_each_level():
    """RTMDet: in evaluation mode, as its batch norms differ in training, a copy of the teacher learns nothing."""
    from tests.networks.test_dense_heads import rtmdet_cfg

    teacher = detector(rtmdet_cfg())
    for cut, head in ((1, teacher), (2, detector(rtmdet_cfg(), 1))):
        student = copy.deepcopy(teacher).eval()
        losses = cross(cut=cut, boxes='none')
        model = distill(student, losses, teacher={'model': copy.deepcopy(head), 'optimize': False})
        value = model(**batch(), mode='loss')['loss_cross']
        assert value.item() == 0 if head is teacher else value.item() > 0
        value.backward()
        last = student.bbox_head.cls_convs[0][cut - 1].conv.weight.grad
        assert head is teacher or last.any()
        assert all(conv.weight.grad is None for conv in student.bbox_head.rtm_cls)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('kind', KINDS)
def test_half_precision_on_a_gpu(kind):
    """The same value as in float32, roughly, and a gradient that is finite."""
    values = []
    for dtype in (torch.float32, torch.float16):
        model = distill(detector(cfg_of(kind)), cross(), teacher=detector(cfg_of(kind), 1)).train().cuda()
        data = batch()
        data = {'inputs': data['inputs'].cuda(), 'data_samples': [s.cuda() for s in data['data_samples']]}
        with torch.autocast('cuda', dtype=dtype, enabled=dtype != torch.float32):
            value = model(**data, mode='loss')['loss_cross']
        value.backward()
        assert model.bbox_head.cls_convs[0].conv.weight.grad.isfinite().all()
        values.append(value.item())
    assert values[1] == pytest.approx(values[0], rel=0.1)


class TestWholeHeads:
    def test_a_head_is_all_of_its_levels(self):
        cfg = cfg_of('GFL')
        losses: dict[str, Any] = {
            'loss_short': {'type': 'LDLoss', 'on': 'bbox_head'},
            'loss_long': {'type': 'LDLoss', 'on': [f'bbox_head[{o}][{i}]' for o in (0, 1) for i in range(5)]},
        }
        model = distill(detector(cfg), losses, teacher=detector(cfg, 1)).train()
        found = model(**batch(), mode='loss')
        assert found['loss_short'] == found['loss_long'] > 0

    def test_each_side_names_its_own(self):
        cfg = cfg_of('GFL')
        losses = cross(on={'student': 'bbox_head', 'teacher': 'bbox_head'})
        model = distill(detector(cfg), losses, teacher=detector(cfg, 1)).train()
        assert model(**batch(), mode='loss')['loss_cross'] > 0

    @pytest.mark.parametrize(
        ('kind', 'other', 'arguments', 'told'),
        [
            ('GFL', 'GFL', {'on': 'bbox_head[0][0]'}, "takes a dense head as a whole, on='bbox_head'"),
            ('GFL', 'GFL', {'on': ['bbox_head', 'neck[0]']}, "takes a dense head as a whole, on='bbox_head'"),
            ('GFL', 'GFL', {'through': 'bbox_head'}, 'and there is a `through`'),
            ('GFL', 'GFL', {'cut': 4}, 'cls_convs of the student.s GFLHead has 3: expected 0 to 3'),
            ('GFL', 'ATSS', {}, 'what the numbers of a box are: .bins. and .deltas.'),
            ('ATSS', 'ATSS', {'boxes': 'distributions'}, 'ATSSHead puts out numbers'),
            ('ATSS', 'FCOS', {'boxes': 'none'}, 'where in its cell a place lies'),
        ],
    )
    def test_what_cannot_be(self, kind, other, arguments, told):
        with pytest.raises(ValueError, match=told):
            distill(detector(cfg_of(kind)), cross(**arguments), teacher=detector(cfg_of(other), 1))

    def test_other_widths(self):
        teacher = detector(cfg_of('GFL', feat_channels=64), 1)
        with pytest.raises(ValueError, match=r"does not fit there: 'bbox_head\.cls_convs\.1@0' has the shape"):
            distill(detector(cfg_of('GFL')), cross(), teacher=teacher)

    def test_boxes_that_nobody_can_read(self):
        cfg = cfg_of('RetinaNet')
        cfg['bbox_head']['bbox_coder'] = {'type': 'TBLRBBoxCoder', 'normalizer': 4.0}
        with pytest.raises(ValueError, match='nobody knows how to read those'):
            distill(detector(cfg), cross(), teacher=detector(cfg, 1))
