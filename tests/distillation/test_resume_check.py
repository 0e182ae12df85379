"""A resumed run goes on with the losses and teachers that it was begun with, or says what is another."""

import pytest
import torch
from torch import nn

from mmkd_plugin.distillation import resume_check
from mmkd_plugin.files.checkpoint import read_checkpoint
from tests.end_to_end.helpers import digits_cfg, runner_of

pytestmark = pytest.mark.openmmlab
HINT = {'type': 'FitNetLoss', 'on': 'backbone.layer2', 'loss_weight': 1.0}
TWIN = {**HINT, 'on': {'student': 'backbone.layer2', 'teacher': 'backbone.layer2'}}
KD = {'type': 'KDLoss', 'on': 'head.fc'}


def config(folder, losses, hook=True, epochs=2, **more):
    cfg = digits_cfg(folder, epochs, **more)
    cfg.model.losses = {'_delete_': True, **losses}
    cfg.model.losses.pop('_delete_')
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, *([{'type': 'DistillHook'}] if hook else [])]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


def train(cfg):
    runner = runner_of(cfg)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def first(tmp_path_factory):
    """A run with two connectors of equal shape, ended after its first epoch."""
    folder = tmp_path_factory.mktemp('first')
    train(config(folder, {'loss_a': HINT, 'loss_b': TWIN}, epochs=1))
    return folder / 'epoch_1.pth'


def resumed(tmp_path, checkpoint, losses, **options):
    cfg = config(tmp_path, losses, **options)
    cfg.resume, cfg.load_from = True, str(checkpoint)
    return cfg


def test_the_same_goes_on(tmp_path, first):
    assert train(resumed(tmp_path, first, {'loss_a': HINT, 'loss_b': TWIN})).epoch == 2


@pytest.mark.parametrize(
    ('losses', 'match'),
    [
        ({'loss_a': HINT}, r'only there distill\.losses\.loss_b\.0\.regressor\.0.*, only here none.*load_from='),
        ({'loss_a': HINT, 'loss_b': TWIN, 'loss_c': HINT}, r'only there none, only here distill\.losses\.loss_c'),
        ({'loss_a': HINT, 'loss_b': {**HINT, 'on': 'backbone.layer3'}}, r'loss_b.*\(32,\).*, only here .*\(64,\)'),
        ({'loss_b': TWIN, 'loss_a': HINT}, 'the same in another order'),
        ({'loss_kd': KD}, r'loss_a\.0\.regressor.*only here none'),
    ],
)
def test_other_learnable_parts(tmp_path, first, losses, match):
    with pytest.raises(ValueError, match=match):
        train(resumed(tmp_path, first, losses))


def test_connectors_exchanged_without_our_hook(tmp_path, first):
    """mmengine loads their momentum by position; nothing is updated with it."""
    runner = runner_of(resumed(tmp_path, first, {'loss_b': TWIN, 'loss_a': HINT}, hook=False))
    steps = []
    runner.model.head.fc.weight.register_post_accumulate_grad_hook(lambda _: steps.append(1))
    with pytest.raises(ValueError, match='the same in another order'):
        runner.train()
    assert not steps


def test_weights_alone_may_start_another_run(tmp_path, first):
    cfg = config(tmp_path, {'loss_kd': KD}, epochs=1)
    cfg.load_from = str(first)
    assert train(cfg).epoch == 1


def test_another_teacher_is_said(tmp_path, first, monkeypatch):
    said = []
    monkeypatch.setattr(resume_check, 'print_log', lambda text, *_: said.append(text))
    cfg = resumed(tmp_path, first, {'loss_a': HINT, 'loss_b': TWIN})
    train(cfg)
    assert not said
    state = torch.load('mmkd_plugin/checkpoints/digits/resnet_teacher.pth')
    state.get('state_dict', state)['head.fc.bias'][0] += 0.5
    torch.save(state, tmp_path / 'other.pth')
    cfg.model.teacher.checkpoint = str(tmp_path / 'other.pth')
    cfg.load_from = str(first)
    train(cfg)
    assert 'the weights of teacher are not those that this run was begun with' in said[0]


def test_a_checkpoint_of_before_is_compared_by_its_weights(first):
    checkpoint = read_checkpoint(first)
    del checkpoint['message_hub']['runtime_info'][resume_check.KEY]

    shape = checkpoint['state_dict']['distill.losses.loss_a.0.regressor.0.weight'].shape

    class Of(nn.Module):
        """What `record_of` looks at."""

        def __init__(self, *names):
            super().__init__()
            self.teachers: dict[str, object] = {}
            self.losses = nn.ModuleDict()
            for name in names:
                entry = nn.Module()
                entry.regressor = nn.Sequential(nn.Conv2d(shape[1], shape[0], 1, bias=False), nn.BatchNorm2d(shape[0]))
                self.losses[name] = nn.ModuleList([entry])
            self.learnable = [[f'distill.{name}', list(p.shape)] for name, p in self.named_parameters()]

    same, other = Of('loss_a', 'loss_b'), Of('loss_a')
    resume_check.compare_with_checkpoint(same, checkpoint)
    with pytest.raises(ValueError, match='loss_b'):
        resume_check.compare_with_checkpoint(other, checkpoint)
