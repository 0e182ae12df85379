"""Exits learn from the labels and from the deepest classifier, train the stages they stand on, and vanish."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.registry import MODELS

from mmkd_plugin import distill
from mmkd_plugin.files.checkpoint import read_checkpoint, state_dict_of
from mmkd_plugin.losses import fitnet_loss, kd_loss
from mmkd_plugin.teachers import Exits
from mmkd_plugin.teachers.exits import SeparableConv, _exit
from tests.conftest import batch, build, student_cfg
from tests.detection import detector, faster_rcnn_cfg
from tests.distillation.test_step import set_progress
from tests.end_to_end.helpers import ROOT, digits_cfg, runner_of, together
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
STAGES = [f'backbone.layer{number}' for number in (1, 2, 3)]
SPEC: dict[str, Any] = {'type': 'Exits', 'after': STAGES, 'to': 'backbone.layer4', 'input_shape': (1, 28, 28)}
KD: dict[str, Any] = {
    'type': 'KDLoss', 'learner': 'exits', 'temperature': 3.0,
    'on': [{'exits': f'{number}.fc', 'student': 'head.fc'} for number in range(3)],
}  # fmt: skip
FEATURE: dict[str, Any] = {
    'type': 'FitNetLoss', 'learner': 'exits', 'regressor': 'identity', 'loss_weight': 1.0,
    'on': [{'exits': f'{number}.bottleneck', 'student': 'backbone.layer4'} for number in range(3)],
}  # fmt: skip
LOSSES = {'loss_kd': KD, 'loss_feature': FEATURE}
OWN = [f'exits.{number}.loss' for number in range(3)]


def with_exits(student, losses=LOSSES, task_loss=None, **spec):
    return distill(student, losses, teachers={'exits': {**SPEC, **spec}}, task_loss=task_loss).train()


def test_values_are_those_of_the_paper(student):
    twin = copy.deepcopy(student).train()
    model = with_exits(student)
    exits = copy.deepcopy(model.distill.peers.exits)
    losses, data = model(**batch(), mode='loss'), batch()
    assert list(losses) == ['loss', *OWN, *LOSSES]
    maps = []
    for stage in STAGES:
        twin.get_submodule(stage).register_forward_hook(lambda *args: maps.append(args[2]))
    deepest = twin.extract_feat(data['inputs'], stage='backbone')[-1]
    logits = twin.head((deepest.mean((2, 3)),))
    labels = torch.arange(4)
    by_exit = [exit_.bottleneck(own) for exit_, own in zip(exits, maps, strict=True)]
    scores = [exit_.fc(own.mean((2, 3))) for exit_, own in zip(exits, by_exit, strict=True)]
    for name, score in zip(OWN, scores, strict=True):
        torch.testing.assert_close(losses[name], F.cross_entropy(score, labels))
    torch.testing.assert_close(losses['loss_kd'], sum(kd_loss(score, logits, 3.0) for score in scores))
    torch.testing.assert_close(losses['loss_feature'], sum(fitnet_loss(own, deepest) for own in by_exit))


@pytest.mark.parametrize(
    ('name', 'trained', 'left'),
    [
        ('loss_kd', [*STAGES, 'distill.peers.exits.0'], ['backbone.layer4', 'head']),
        ('loss_feature', [*STAGES, 'distill.peers.exits.2.bottleneck'], ['backbone.layer4', 'head']),
        ('exits.0.loss', [STAGES[0], 'distill.peers.exits.0.fc'], [*STAGES[1:], 'head', 'distill.peers.exits.1']),
        ('exits.2.loss', STAGES, ['backbone.layer4', 'head', 'distill.peers.exits.1']),
        ('loss', [*STAGES, 'backbone.layer4', 'head'], ['distill']),
    ],
)
def test_who_learns_from_what(student, name, trained, left):
    """Exits train the stages they stand on; what they learn from, the deepest classifier and map, is a constant."""
    model = with_exits(student)
    model(**batch(), mode='loss')[name].backward()
    for path in trained:
        grads = [p.grad for p in model.get_submodule(path).parameters()]
        assert all(grad is not None for grad in grads), path
        assert any(grad.any() for grad in grads), path  # of new blocks the last norm is 0, and the rest waits
    for path in left:
        assert all(p.grad is None for p in model.get_submodule(path).parameters()), path


def test_the_weight_of_their_own_losses(student):
    plain = with_exits(copy.deepcopy(student))
    twin = copy.deepcopy(plain)
    model = distill(student, LOSSES, teachers={'exits': {**SPEC, 'task_loss': {'loss_weight': 0.7}}}).train()
    model.distill.peers.load_state_dict(twin.distill.peers.state_dict())
    one, other = (net(**batch(), mode='loss') for net in (twin, model))
    for name in OWN:
        torch.testing.assert_close(other[name], 0.7 * one[name])
    assert torch.equal(one['loss'], other['loss'])


def test_one_pass_and_an_output_that_stays(student):
    data = batch()
    before = student.eval()(data['inputs'], mode='tensor')
    keys = list(student.state_dict())
    model = with_exits(student)
    calls = []
    model.backbone.register_forward_pre_hook(lambda *_: calls.append(1))
    model(**batch(), mode='loss')
    assert calls == [1]
    fresh = build(student_cfg())
    own = {key: value for key, value in model.state_dict().items() if not key.startswith('distill.')}
    assert list(own) == keys
    fresh.load_state_dict(own, strict=True)
    assert torch.equal(fresh.eval()(data['inputs'], mode='tensor'), model.eval()(data['inputs'], mode='tensor'))
    assert not torch.equal(before, model(data['inputs'], mode='tensor'))  # running statistics moved


def test_copies_have_exits_of_their_own(student):
    model = with_exits(student)
    twin = copy.deepcopy(model)
    assert twin.distill.sources['exits'].model is twin.distill.peers.exits
    sum(twin(**batch(), mode='loss').values()).backward()
    assert model.distill.peers.exits[0].fc.weight.grad is None
    assert twin.distill.peers.exits[0].fc.weight.grad.any()


def test_initial_weights_follow_from_the_seed_and_leave_the_students_alone():
    def made(seed):
        torch.manual_seed(seed)
        teachers, losses = {'exits': SPEC}, LOSSES
        model = MODELS.build({**student_cfg(), 'type': 'Distilled', 'student': 'ImageClassifier',
                              'teachers': teachers, 'losses': losses})  # fmt: skip
        model.init_weights()
        return model, torch.rand(1)

    (one, drawn), (same, drawn_again), (other, _) = made(0), made(0), made(1)
    torch.testing.assert_close(one.state_dict(), same.state_dict(), rtol=0, atol=0)
    assert torch.equal(drawn, drawn_again)
    assert not torch.equal(one.distill.peers.exits[0].fc.weight, other.distill.peers.exits[0].fc.weight)
    assert torch.equal(one.backbone.conv1.weight, build(student_cfg()).backbone.conv1.weight)


def test_the_shape_of_the_deepest_map_whatever_the_stage():
    def exit_of(stage, deepest):
        return _exit(torch.zeros(2, *stage), torch.zeros(2, *deepest), 5, 'x')

    for stage, deepest, widths in [
        ((64, 32, 32), (512, 4, 4), [128, 256, 512]),
        ((4, 28, 28), (32, 4, 4), [8, 16, 32]),  # 14, 7, 4
        ((6, 9, 14), (10, 5, 7), [10]),
        ((6, 8, 8), (24, 8, 8), [24]),  # dilated: of the same size
    ]:
        made = exit_of(stage, deepest)
        assert made.bottleneck(torch.zeros(2, *stage)).shape == (2, *deepest)
        assert [block[5].out_channels for block in made.bottleneck] == widths
        assert made(torch.zeros(2, *stage)).shape == (2, 5)
    with pytest.raises(ValueError, match=r'x is a map of \(8, 8\) pixels, which halving does not bring to'):
        exit_of((4, 8, 8), (8, 3, 3))


def test_a_last_batch_of_one_image():
    model = with_exits(build(student_cfg()))
    assert all(value.isfinite() for value in model(**batch(1), mode='loss').values())
    block = SeparableConv(4, 8, 2).train()
    assert block(torch.randn(1, 4, 2, 2)).isfinite().all()


def test_exits_that_wait_are_not_run_and_stay(student):
    set_progress(0, 0)
    late = {'schedule': {'begin': 1}}
    model = distill(
        student, {'loss_kd': {**KD, **late}}, teachers={'exits': {**SPEC, 'task_loss': late}},
    ).train()  # fmt: skip
    before = copy.deepcopy(model.distill.state_dict())
    losses = model(**batch(), mode='loss')
    assert list(losses) == ['loss']
    losses['loss'].backward()
    torch.testing.assert_close(model.distill.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.distill.parameters())
    MessageHub.get_current_instance().update_info('epoch', 1)
    assert list(model(**batch(), mode='loss')) == ['loss', *OWN, 'loss_kd']


def test_exits_alone_leave_what_lies_behind_them(student):
    """While the student's own loss is off, exits train the stages up to theirs."""
    set_progress(0, 0)
    losses = {'loss_kd': {**KD, 'on': [{'exits': f'{number}.fc', 'student': 'head.fc'} for number in (0, 1)]}}
    model = with_exits(student, losses, {'schedule': {'begin': 1}}, after=STAGES[:2])
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    losses = model(**batch(), mode='loss')
    model.parse_losses(losses)[0].backward()
    optimizer.step()
    after = model.state_dict()
    behind = ('backbone.layer3', 'backbone.layer4', 'head')
    assert all(torch.equal(after[key], before[key]) for key in after if key.startswith(behind))
    for key in ('backbone.layer2.0.conv1.weight', 'distill.peers.exits.1.fc.weight'):
        assert not torch.equal(after[key], before[key])


def config(folder, epochs=2, **more):
    cfg = digits_cfg(folder, epochs, 'digits/byot_resnet.py')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.merge_from_dict(more)
    return cfg


def test_through_the_runner_killed_and_resumed(tmp_path):
    ema = {'type': 'EMAHook', 'momentum': 0.1}
    cfg = config(tmp_path / 'whole')
    hooks = [*cfg.custom_hooks, ema]
    whole = runner_of(config(tmp_path / 'whole', custom_hooks=hooks)).train().state_dict()
    kill(config(tmp_path / 'part', custom_hooks=hooks), 6)
    after = resumed(config(tmp_path / 'part', custom_hooks=hooks))
    torch.testing.assert_close(after.state_dict(), whole, rtol=0, atol=0)
    one, other = (read_checkpoint(tmp_path / name / 'epoch_2.pth') for name in ('whole', 'part'))
    torch.testing.assert_close(one['ema_state_dict'], other['ema_state_dict'], rtol=0, atol=0)
    plain = MODELS.build(digits_cfg(tmp_path, config='digits/resnet_student.py').model)
    plain.load_state_dict(state_dict_of(one), strict=True)  # the slim student
    averaged = one['ema_state_dict']['module.distill.peers.exits.0.fc.weight']
    assert not torch.equal(averaged, one['state_dict']['distill.peers.exits.0.fc.weight'])


TWO_PROCESSES = """
import sys, copy, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from tests.conftest import student_cfg, build, batch
from tests.teachers.test_exits import with_exits
dist.init_process_group('gloo')
rank, world = dist.get_rank(), dist.get_world_size()
with DefaultScope.overwrite_default_scope('mmpretrain'):
    torch.manual_seed(0)
    model = with_exits(build(student_cfg())).double().eval()  # statistics of a half are others than of the whole
    data = batch(8)
    data['inputs'] = data['inputs'].double()
    whole = copy.deepcopy(model)
    whole.parse_losses(whole(**data, mode='loss'))[0].backward()
    half = {'inputs': data['inputs'][rank::world], 'data_samples': data['data_samples'][rank::world]}
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    model.parse_losses(wrapped(**half, mode='loss'))[0].backward()
    for (name, a), b in zip(whole.named_parameters(), model.parameters()):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-9, atol=1e-12, msg=lambda m: f'{name}: {m}')
print('same gradients', flush=True)
dist.barrier()
"""


def test_two_processes_have_the_gradient_of_the_whole_batch(tmp_path):
    script = tmp_path / 'two.py'
    script.write_text(TWO_PROCESSES)
    for process in together(script, ROOT):
        assert 'same gradients' in process.stdout


MIXUP = {**student_cfg(), 'train_cfg': {'augments': {'type': 'Mixup', 'alpha': 0.2}}}
MULTI = student_cfg()
MULTI['head'] = {'type': 'MultiLabelLinearClsHead', 'num_classes': 10, 'in_channels': 32}


@pytest.mark.parametrize(
    ('spec', 'match'),
    [
        ({'after': []}, r"exits \(Exits\) has after=\[\] and to='backbone.layer4', expected one path or more"),
        ({'after': 'backbone.layer1'}, r"has after='backbone.layer1' and to="),
        ({'to': None}, r'and to=None, expected'),
        ({'after': ['backbone.layer7']}, r"no module 'backbone.layer7'.*Near names: .*backbone.layer"),
        ({'after': [*STAGES, STAGES[0]]}, r"names 'backbone.layer1' twice"),
        ({'after': ['backbone.layer4']}, r"names 'backbone.layer4' twice"),
        ({'after': ['head.fc']}, r"'head.fc' has the shape \(2, 10\), expected a map \(N, C, H, W\)"),
        ({'after': ['backbone.layer3'], 'to': 'backbone.layer2'}, r"\['backbone.layer3'\] are computed after to="),
        ({'input_shape': (3, 28, 28)}, r'images of shape \(2, 3, 28, 28\) failed.*exits have an input_shape'),
        ({'before': 'x'}, r"exits \(Exits\) has the unknown keys \['before'\]"),
        ({'task_loss': {'weight': 1}}, r'exits: task_loss has the unknown keys'),
    ],
)
def test_mistakes(student, spec, match):
    with pytest.raises(ValueError, match=match):
        distill(student, LOSSES, teachers={'exits': {**SPEC, **spec}})


def test_students_that_have_no_exits():
    with pytest.raises(ValueError, match=r'the student is a FasterRCNN, expected an image classifier.*for classifiers'):
        Exits.from_spec({'after': STAGES, 'to': 'backbone.layer4'}, 'exits', detector(faster_rcnn_cfg()))
    with pytest.raises(ValueError, match=r'needs one class per image, and .* makes soft labels'):
        with_exits(build(MIXUP))
    with pytest.raises(ValueError, match='MultiLabelLinearClsHead do not exclude each other'):
        with_exits(build(MULTI))


def test_an_exit_that_does_not_exist(student):
    with pytest.raises(ValueError, match=r"the exits \(ModuleList\) has no module '3.fc'"):
        with_exits(student, {'loss_kd': {**KD, 'on': {'exits': '3.fc', 'student': 'head.fc'}}})
