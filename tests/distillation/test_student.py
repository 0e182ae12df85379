"""The distilled student is the student: its class, its parameters, its outputs."""

import copy
import pickle

import pytest
import torch
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.registry import MODELS
from mmpretrain.models import ImageClassifier
from torch import nn

from mmkd_plugin import distill
from mmkd_plugin.losses import kd_loss
from tests.conftest import DKD, KD, batch, build, student_cfg, trained_like


def make(student, teacher, **kwargs):
    return distill(student, **{'losses': KD, 'teacher': teacher, **kwargs})


def test_it_is_still_what_it_was(student, teacher):
    names = list(student.state_dict())
    parameters = [id(p) for p in student.parameters()]
    model = make(student, teacher)
    assert model is student
    assert isinstance(model, ImageClassifier)
    assert type(model).__name__ == 'DistilledImageClassifier'
    assert list(model.state_dict()) == names
    assert [id(p) for p in model.parameters()] == parameters
    assert [n for n, _ in model.named_children()] == ['data_preprocessor', 'backbone', 'neck', 'head', 'distill']


@pytest.mark.parametrize('mode', ['tensor', 'predict'])
def test_other_modes_are_the_students_own(student, teacher, mode):
    plain = copy.deepcopy(student).eval()
    model = make(student, teacher).eval()
    a, b = plain(**batch(), mode=mode), model(**batch(), mode=mode)
    if mode == 'tensor':
        assert torch.equal(a, b)
    else:
        assert all(torch.equal(x.pred_score, y.pred_score) for x, y in zip(a, b, strict=True))


def test_loss_is_added_to_the_students_own(student, teacher):
    plain, reference = copy.deepcopy(student), copy.deepcopy(teacher).eval()
    model = make(student, teacher)
    own = plain(**batch(), mode='loss')
    losses = model(**batch(), mode='loss')
    assert set(losses) == {'loss', 'loss_kd'}
    assert torch.equal(losses['loss'], own['loss'])
    with torch.no_grad():
        plain.load_state_dict(copy.deepcopy(model.state_dict()))
        expected = kd_loss(copy.deepcopy(student).train()(**batch()), reference(batch()['inputs']), 4.0)
    torch.testing.assert_close(losses['loss_kd'], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    'call',
    [
        lambda m, b: m(b['inputs'], b['data_samples'], 'loss'),
        lambda m, b: m(b['inputs'], data_samples=b['data_samples'], mode='loss'),
    ],
)
def test_arguments_may_be_positional(student, teacher, call):
    assert 'loss_kd' in call(make(student, teacher), batch())


def test_student_runs_once_in_a_step(student, teacher):
    calls = []
    student.backbone.register_forward_hook(lambda *_: calls.append(1))
    model = make(student, teacher)
    calls.clear()
    model(**batch(), mode='loss')
    assert len(calls) == 1


def test_config_builds_the_same_student_as_its_plain_config():
    cfg = student_cfg()
    torch.manual_seed(0)
    plain = MODELS.build(copy.deepcopy(cfg))
    plain.init_weights()
    after_plain = torch.rand(3)
    torch.manual_seed(0)
    model = MODELS.build({**copy.deepcopy(cfg), 'type': 'Distilled', 'student': 'ImageClassifier', 'losses': DKD,
                          'teacher': 'mmkd_plugin::digits/resnet_teacher.py'})  # fmt: skip
    model.init_weights()
    assert torch.equal(torch.rand(3), after_plain), 'the teacher drew random numbers'
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))


CONNECTED = {
    'loss_hint': {'type': 'FitNetLoss', 'on': 'backbone.layer2'},
    'loss_review': {'type': 'ReviewKDLoss', 'on': ['backbone.layer3', 'backbone.layer4']},
}


def test_a_top_level_init_cfg_does_not_see_learnable_parts_of_losses():
    """As in 56 of mmpretrain's classifier bases: it is applied to every module inside the model."""
    cfg = student_cfg(init_cfg=[{'type': 'TruncNormal', 'layer': ['Conv2d', 'Linear'], 'std': 0.2, 'bias': 0.3},
                                {'type': 'Constant', 'layer': ['_BatchNorm'], 'val': 0.7}])  # fmt: skip
    plain = build(cfg)
    made = {**copy.deepcopy(cfg), 'type': 'Distilled', 'student': 'ImageClassifier', 'losses': CONNECTED,
            'teacher': 'mmkd_plugin::digits/resnet_teacher.py'}  # fmt: skip
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(made))
    before = copy.deepcopy(model.distill.state_dict())
    model.init_weights()
    torch.testing.assert_close(model.distill.state_dict(), before, rtol=0, atol=0)
    own = {k: v for k, v in model.state_dict().items() if not k.startswith('distill.')}
    torch.testing.assert_close(own, dict(plain.state_dict()), rtol=0, atol=0)
    assert list(dict(model.named_children()))[-1] == 'distill'
    fresh = build(student_cfg()).state_dict()
    assert any(not torch.equal(own[key], fresh[key]) for key in own), 'this test would see nothing'


def test_student_may_be_a_class():
    model = MODELS.build({**student_cfg(), 'type': 'Distilled', 'student': ImageClassifier, 'losses': KD,
                          'teacher': {'model': student_cfg(), 'untrained': True}})  # fmt: skip
    assert isinstance(model, ImageClassifier)


def test_teacher_is_no_part_of_the_model(student, teacher):
    model = make(student, {'model': student_cfg(), 'untrained': True})
    hidden = model.distill.teachers['teacher'].model
    assert not set(map(id, hidden.parameters())) & set(map(id, model.parameters()))
    assert not any('teacher' in key for key in model.state_dict())
    model.train()
    assert not hidden.training
    model.double()
    data = batch()
    data['inputs'] = data['inputs'].double()
    model(**data, mode='loss')
    assert next(model.distill.teachers['teacher'].model.parameters()).dtype == torch.float64


def test_copies_train_alone_and_share_the_teacher(student, teacher):
    model = make(student, teacher)
    twin = copy.deepcopy(model)
    assert type(twin) is type(model)
    assert twin.distill.teachers['teacher'] is model.distill.teachers['teacher']
    twin(**batch(), mode='loss')['loss_kd'].backward()
    assert twin.head.fc.weight.grad is not None
    assert model.head.fc.weight.grad is None
    average = ExponentialMovingAverage(model)
    average.update_parameters(model)
    assert 'distill' not in ''.join(average.module.state_dict())


def test_a_copy_that_is_cast_or_moved_leaves_the_teacher_alone(student, teacher):
    model = make(student, teacher)
    model(**batch(), mode='loss')
    copy.deepcopy(model).half().to('meta')
    assert torch.isfinite(model(**batch(), mode='loss')['loss_kd'])
    assert next(model.distill.teachers['teacher'].model.parameters()).dtype == torch.float32


def test_it_can_be_pickled(student, teacher):
    model = make(student, teacher).eval()
    twin = pickle.loads(pickle.dumps(model))
    assert type(twin) is type(model)
    assert torch.equal(twin(**batch(), mode='loss')['loss_kd'], model(**batch(), mode='loss')['loss_kd'])


@pytest.mark.parametrize('init_cfg', [None, {'type': 'TruncNormal', 'layer': ['Conv2d', 'Linear'], 'std': 0.1}])
def test_weight_zero_is_plain_training_bit_for_bit(init_cfg):
    """20 iterations on the CPU: same parameters, same buffers."""
    cfg = student_cfg(init_cfg=init_cfg)

    def train(model):
        torch.manual_seed(11)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        for i in range(20):
            data = batch()
            data['inputs'] = data['inputs'] * (1 + 0.1 * i) + 0.01 * torch.randn(data['inputs'].shape)
            total, _ = model.parse_losses(model(**data, mode='loss'))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        return {k: v.clone() for k, v in model.state_dict().items()}

    def distilled(losses):
        return build({**cfg, 'type': 'Distilled', 'student': 'ImageClassifier', 'losses': losses,
                      'teacher': 'mmkd_plugin::digits/resnet_teacher.py'})  # fmt: skip

    plain = train(build(cfg))
    losses = {**KD, **DKD, **CONNECTED}
    trained = train(distilled({name: {**loss, 'loss_weight': 0.0} for name, loss in losses.items()}))
    own = {k: v for k, v in trained.items() if not k.startswith('distill.')}
    assert len(own) < len(trained)
    torch.testing.assert_close(own, plain, rtol=0, atol=0)
    assert not torch.equal(train(distilled(KD))['head.fc.weight'], plain['head.fc.weight']), 'this test sees nothing'


class Toy(BaseModel):
    """A mmengine model that is no mmpretrain classifier and takes labels as a tensor."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

    def forward(self, imgs, labels=None, mode='tensor'):
        logits = self.net(imgs)
        return {'loss': nn.functional.cross_entropy(logits, labels)} if mode == 'loss' else logits


@pytest.mark.parametrize(
    'losses',
    [
        {'loss_a': {'type': 'KDLoss', 'on': 'net.3'}},
        {'loss_a': {'type': 'DKDLoss', 'on': {'student': 'net.3', 'teacher': '3'}}},
    ],
)
def test_any_base_model(losses):
    teacher = Toy() if losses['loss_a']['type'] == 'KDLoss' else Toy().net
    model = distill(Toy(), losses, teacher=teacher, input_shape=(3, 16, 16))
    from mmengine.optim import OptimWrapper

    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.net[3].weight.clone()
    logs = model.train_step((torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])), wrapper)
    assert 'loss_a' in logs
    assert not torch.equal(before, model.net[3].weight)


class TestMistakes:
    @pytest.mark.parametrize(
        ('change', 'match'),
        [
            ({'losses': None, 'loses': KD}, r"has no losses \(is 'loses' meant\?\)\. Expected dict\(type='Distilled'"),
            ({'student': None}, 'has no student. Expected dict'),
            ({'student': 'ImageClasifier'}, r"student='ImageClasifier' given, which is not .*mean ImageClassifier"),
            ({'student': None, 'studnt': 'ImageClassifier'}, r"has no student \(is 'studnt' meant\?\)"),
            ({'student': {'type': 'ImageClassifier'}}, r'student=\{.*expected what the `type` of the plain model was'),
            ({'task_los': {'loss_weight': 0.1}}, "unknown key 'task_los': is 'task_loss' meant"),
            ({'losses': {'loss_kd': None}}, 'are dropped; to train the plain student'),
            ({'losses': {3: KD['loss_kd']}}, r"losses=\{'3': \.\.\.\} given; the name must be an identifier"),
            ({'input_shape': (True, 28, 28)}, r'input_shape=\(True, 28, 28\) given'),
            ({'input_shape': (1, '28', 28)}, r"input_shape=\(1, '28', 28\) given"),
        ],
    )
    def test_of_a_config(self, change, match):
        cfg = {**student_cfg(), 'type': 'Distilled', 'student': 'ImageClassifier', 'losses': KD,
               'teacher': 'mmkd_plugin::digits/resnet_teacher.py', **change}  # fmt: skip
        with pytest.raises(ValueError, match=match):
            MODELS.build({key: value for key, value in cfg.items() if value is not None})

    def test_one_of_several_losses_dropped(self, student, teacher):
        assert list(distill(student, dict(KD, loss_dkd=None), teacher=teacher).distill.losses) == ['loss_kd']

    def test_not_a_base_model(self):
        with pytest.raises(TypeError, match='Linear given as student, expected a mmengine BaseModel'):
            distill(nn.Linear(1, 1), KD, teacher=nn.Linear(1, 1))

    def test_twice(self, student, teacher):
        make(student, teacher)
        with pytest.raises(ValueError, match='distilled already'):
            make(student, copy.deepcopy(teacher))

    def test_no_teacher_or_two_ways(self, student, teacher):
        with pytest.raises(ValueError, match=r'either teacher=... or teachers='):
            distill(student, KD)
        with pytest.raises(ValueError, match=r'either teacher=... or teachers='):
            distill(student, KD, teacher=teacher, teachers={'a': teacher})

    def test_forward_without_mode(self, teacher):
        class Odd(BaseModel):
            def forward(self, inputs, **kwargs):
                return {}

        with pytest.raises(TypeError, match=r'Odd\.forward has no argument `mode`'):
            distill(Odd(), KD, teacher=teacher)

    def test_student_is_the_teacher(self, student):
        with pytest.raises(ValueError, match='is, or shares modules or weights with, the student'):
            make(student, student)
        assert type(student) is ImageClassifier, 'a failed distill() must leave the student as it was'

    def test_mixup_with_a_loss_that_needs_labels(self, teacher):
        student = build(student_cfg(train_cfg={'augments': {'type': 'Mixup', 'alpha': 1.0}}))
        with pytest.raises(ValueError, match=r"losses\['loss_dkd'\] \(DKDLoss\) needs one class per image.*mixup"):
            make(student, teacher, losses=DKD)
        assert 'loss_kd' in make(student, teacher).distill.losses

    def test_missing_teacher_file_is_told_before_training(self, student):
        model = make(student, {'model': student_cfg(), 'checkpoint': 'nowhere/t.pth'})
        with pytest.raises(FileNotFoundError, match=r"'nowhere/t.pth' does not exist"):
            model.init_weights()
        with pytest.raises(FileNotFoundError):
            model(**batch(), mode='loss')
        model.eval()(**batch(), mode='predict')  # testing needs no teacher file


def test_teacher_like_student_gives_zero():
    """In evaluation mode a copy of the student teaches nothing; its fold costs no accuracy."""
    student = trained_like(build(student_cfg()))
    model = distill(student, {**KD, **DKD}, teacher=copy.deepcopy(student)).eval()
    losses = model(**batch(), mode='loss')
    assert losses['loss_kd'].item() == pytest.approx(0, abs=1e-5)
    assert losses['loss_dkd'].item() == pytest.approx(0, abs=1e-5)
