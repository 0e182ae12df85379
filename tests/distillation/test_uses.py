"""A loss that uses what another one has trained: a stage on the teacher alone, then the student."""

from typing import ClassVar

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmkd_plugin.files.checkpoint import read_checkpoint
from mmkd_plugin.losses import DistillLoss
from tests.conftest import student_cfg
from tests.end_to_end.helpers import digits_cfg, runner_of
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab


@MODELS.register_module()
class SketchLoss(DistillLoss):
    """Learns on the teacher alone to say its values in few numbers."""

    sides: ClassVar[tuple[str, ...]] = ('teacher',)

    def build_connectors(self, teacher):
        self.down, self.up = nn.Linear(teacher[1], 4), nn.Linear(4, teacher[1])

    def forward(self, teacher):
        return self.loss_weight * (self.up(self.down(teacher)) - teacher).square().mean()


@MODELS.register_module()
class SketchedLoss(DistillLoss):
    """Compares the student with the sketch."""

    uses: ClassVar[dict[str, str]] = {'sketch': 'SketchLoss'}

    def __init__(self, sketch='loss_sketch', loss_weight=1.0):
        super().__init__(loss_weight)
        self.sketch = sketch

    def build_connectors(self, student, teacher):
        self.down = nn.Linear(student[1], self.used('sketch').down.out_features)

    def forward(self, student, teacher):
        with torch.no_grad():
            target = self.used('sketch').down(teacher)
        return self.loss_weight * (self.down(student) - target).square().mean()


def config(folder, begin=1, **changes):
    cfg = digits_cfg(folder, 2)
    cfg.model.losses = {
        'loss_sketched': {'type': 'SketchedLoss', 'on': 'neck', 'schedule': {'begin': begin}},
        'loss_sketch': {'type': 'SketchLoss', 'on': {'teacher': 'neck'}, 'schedule': {'end': 1}},
    }
    for name, change in changes.items():
        for key, value in change.items():  # updating would merge
            cfg.model.losses[name][key] = value
    cfg.model.task_loss = {'schedule': {'begin': 1}}
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.log_level = 'INFO'
    return cfg


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('uses') / 'whole'
    runner = runner_of(config(folder))
    start = {key: value.clone() for key, value in runner.model.state_dict().items()}
    return folder, start, runner.train().state_dict()


def test_each_stage_trains_its_own(whole):
    folder, start, end = whole
    between = read_checkpoint(folder / 'epoch_1.pth')['state_dict']
    assert end.keys() == between.keys()
    assert {'distill.losses.loss_sketch.0.down.weight', 'distill.losses.loss_sketched.0.down.weight'} <= end.keys()
    for key in end:
        sketch = key.startswith('distill.losses.loss_sketch.')
        if sketch:
            torch.testing.assert_close(end[key], between[key], rtol=0, atol=0)
        else:  # the runner drew the student's weights anew, so only the end of the stage is compared
            assert key.startswith('distill.') or between[key].shape == start[key].shape
        if key.endswith('weight') and not sketch:
            assert not torch.equal(end[key], between[key]), key


def test_the_log_says_what_trains(whole):
    folder = whole[0]
    (log,) = folder.glob('*/*.log')
    told = [line for line in log.read_text().splitlines() if 'phase of' in line]
    assert 'phase of loss_sketch from epoch 0, iteration 0: trains distill.losses.loss_sketch (4 of' in told[0]
    assert 'phase of task + loss_sketched from epoch 1' in told[1]
    assert 'trains backbone, head, distill.losses.loss_sketched (' in told[1]
    assert len(told) == 2


@pytest.mark.parametrize('iteration', [2, 4, 6])
def test_killed_and_resumed(whole, tmp_path, iteration):
    kill(config(tmp_path), iteration)
    torch.testing.assert_close(resumed(config(tmp_path)).state_dict(), whole[2], rtol=0, atol=0)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'loss_sketched': {'sketch': 'loss_other'}}, r"expected the name of a SketchLoss.*there is \['loss_sketch'\]"),
        ({'loss_sketched': {'schedule': {}}}, 'must have ended before it begins'),
        ({'loss_sketch': {'schedule': {}}}, 'must have ended before it begins'),
        ({'loss_sketch': {'schedule': {'end': 5, 'by_epoch': False}}}, 'must have ended before it begins'),
        ({'loss_sketch': {'on': {'teacher': 'head.fc'}}}, 'name the same places'),
        ({'loss_sketch': {'loss_weight': 0}}, 'loss_weight=0'),
    ],
)
def test_mistakes(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        runner_of(config(tmp_path, **changes))


def test_a_peer_reads_what_was_trained_where_it_was_trained(tmp_path):
    cfg = config(tmp_path)
    cfg.model.teachers = {'big': cfg.model.pop('teacher'), 'peer': {'type': 'Peer', 'model': student_cfg()}}
    cfg.model.losses.loss_sketch.on = {'big': 'neck'}
    cfg.model.losses.loss_sketched |= {'learner': 'peer', 'on': {'peer': 'neck', 'big': 'head.fc'}}
    with pytest.raises(ValueError, match='name the same places'):
        runner_of(cfg)
    cfg.model.losses.loss_sketched.on = {'peer': 'neck', 'big': 'neck'}
    runner_of(cfg)


def test_alone_it_says_what_is_missing():
    with pytest.raises(RuntimeError, match='SketchedLoss uses a SketchLoss'):
        SketchedLoss().build_connectors((2, 3), (2, 5))
