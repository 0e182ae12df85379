"""A route of checkpoints of one teacher: which one is read when, and that nothing else differs from a frozen one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.logging import MessageHub

from mmkd_plugin import distill
from mmkd_plugin.facts import Batch, Progress
from mmkd_plugin.hooks import DistillHook, PhaseHook
from mmkd_plugin.losses import kd_loss
from mmkd_plugin.networks import Tap
from mmkd_plugin.teachers import build_source, untrained
from mmkd_plugin.teachers.stages import Greedy
from tests.conftest import KD, batch, build, student_cfg, trained_like
from tests.detection import DKD, detector, faster_rcnn_cfg
from tests.detection import batch as scenes
from tests.end_to_end.helpers import ROOT, digits_cfg, runner_of, together
from tests.killing import kill, resumed

pytestmark = pytest.mark.openmmlab
FC = Tap('head.fc')


@pytest.fixture
def anchors(tmp_path):
    """Three checkpoints, and the networks that are in them."""
    nets = {
        name: trained_like(build(student_cfg(), seed), seed).eval() for name, seed in (('3', 1), ('6', 2), ('9', 3))
    }
    for name, net in nets.items():
        torch.save(net.state_dict(), tmp_path / f'epoch_{name}.pth')
    return nets


def spec(folder, **more) -> dict[str, Any]:
    path = str(folder / 'epoch_{}.pth')
    return {'type': 'Route', 'model': student_cfg(), 'checkpoint': path, 'anchors': [3, 6, 9], **more}


def made(student, folder, **more) -> Any:
    route = build_source(spec(folder, **more), 'teacher', student)
    route.probe(Batch(torch.zeros(2, 1, 28, 28)), {FC: None})
    return route


def read(route, epoch, epochs=9):
    route.get_ready(torch.zeros(1), None, None if epoch is None else Progress(epoch, 10 * epoch, epochs, 10 * epochs))
    return route.read(Batch(batch()['inputs']), {FC: None})[FC]


def test_each_anchor_teaches_in_its_stage(student, tmp_path, anchors):
    route = made(student, tmp_path)
    route.load()
    expected = {name: net(batch()['inputs']) for name, net in anchors.items()}
    torch.testing.assert_close(read(route, None), expected['9'], rtol=1e-4, atol=1e-5)
    for epoch, name in ((0, '3'), (2, '3'), (3, '6'), (6, '9'), (8, '9'), (4, '6')):
        torch.testing.assert_close(read(route, epoch), expected[name], rtol=1e-4, atol=1e-5)
    folded = [name for name, module in route.model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not folded  # each of them is
    assert not any(p.requires_grad for p in route.model.parameters())
    assert not any(m.training for m in route.model.modules() if not isinstance(m, torch.nn.Identity))


def test_an_anchor_is_bit_for_bit_the_frozen_teacher(student, tmp_path, anchors):
    route = made(student, tmp_path)
    route.load()
    for epoch, name in ((0, '3'), (8, '9'), (3, '6')):
        alone = {'model': student_cfg(), 'checkpoint': str(tmp_path / f'epoch_{name}.pth')}
        frozen: Any = build_source(alone, 'teacher', student)
        frozen.probe(Batch(torch.zeros(2, 1, 28, 28)), {FC: None})
        frozen.load()
        frozen.get_ready(torch.zeros(1))
        assert torch.equal(read(route, epoch), frozen.read(Batch(batch()['inputs']), {FC: None})[FC])


@pytest.mark.parametrize('optimize', [True, False])
def test_each_is_read_as_precisely_as_it_is(student, tmp_path, anchors, optimize):
    """Also after others have been cast."""
    route, precise = (made(student, tmp_path, optimize=optimize) for _ in range(2))
    half = torch.zeros(1, dtype=torch.bfloat16)
    for one, like in ((route, half), (precise, torch.zeros(1))):
        one.load()
        for epoch in (0, 3, 6):
            one.get_ready(like, None, Progress(epoch, 0, 9, 9))
    for name, value in precise.model.state_dict().items():
        assert torch.equal(route.model.state_dict()[name], value.to(half) if value.is_floating_point() else value), name


def test_a_line_says_who_teaches(student, tmp_path, anchors, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr('mmkd_plugin.teachers.route.print_log', lambda text, *_: told.append(text))
    route = made(student, tmp_path)
    route.load()
    for epoch in range(9):
        read(route, epoch)
    assert told == [
        'teacher: anchor 3 (1 of 3) teaches from epoch 0, iteration 0',
        'teacher: anchor 6 (2 of 3) teaches from epoch 3, iteration 30',
        'teacher: anchor 9 (3 of 3) teaches from epoch 6, iteration 60',
    ]


def test_each_one_stands_in_and_it_comes_back(student, tmp_path, anchors):
    route = made(student, tmp_path)
    route.load()
    before = read(route, 4)
    like = torch.zeros(1, dtype=torch.float64)
    route.get_ready(like)
    seen = {}
    for called in route.each():
        assert next(route.model.parameters()).dtype == torch.float64
        seen[called] = route.read(Batch(batch()['inputs'].double()), {FC: None})[FC]
    assert list(seen) == ['teacher@3', 'teacher@6', 'teacher@9']
    for name, net in anchors.items():
        torch.testing.assert_close(seen[f'teacher@{name}'].float(), net(batch()['inputs']), rtol=1e-4, atol=1e-5)
    assert torch.equal(read(route, 4), before)
    one = made(student, tmp_path, anchors=['6'])
    assert list(one.each()) == ['teacher']


def test_a_file_that_changed_since_is_refused(student, tmp_path, anchors):
    route = made(student, tmp_path)
    route.load()
    read(route, 0)
    torch.save(build(student_cfg(), 8).state_dict(), tmp_path / 'epoch_6.pth')
    with pytest.raises(RuntimeError, match=r"teacher: anchor 6 \('.*epoch_6.pth'\) is not what it was"):
        read(route, 3)
    (tmp_path / 'epoch_9.pth').unlink()
    with pytest.raises(FileNotFoundError, match=r'teacher: anchor 9: .*does not exist'):
        made(student, tmp_path).load()


def test_the_fingerprint_is_of_all(student, tmp_path, anchors):
    prints = []
    for _ in range(2):
        route = made(student, tmp_path)
        route.load()
        prints.append(route.fingerprint)
        torch.save(build(student_cfg(), 8).state_dict(), tmp_path / 'epoch_6.pth')
    assert prints[0] != prints[1]


def test_tools_that_look_at_shapes_need_no_file(tmp_path):
    assert untrained(spec(tmp_path, switch=[1, 2])) == {'model': student_cfg(), 'untrained': True}


def test_copies_share_it(student, tmp_path, anchors):
    model = distill(student, KD, teacher=spec(tmp_path))
    assert copy.deepcopy(model).distill.sources['teacher'] is model.distill.sources['teacher']


def _other(folder):
    cfg = student_cfg()
    cfg['head'] = {**cfg['head'], 'num_classes': 7}
    torch.save(build(cfg).state_dict(), folder / 'epoch_6.pth')


def _not_finite(folder):
    state = build(student_cfg()).state_dict()
    state['head.fc.bias'][0] = float('nan')
    torch.save(state, folder / 'epoch_6.pth')


@pytest.mark.parametrize(
    ('change', 'error', 'match'),
    [
        (lambda folder: (folder / 'epoch_6.pth').unlink(), FileNotFoundError, 'teacher: anchor 6: '),
        (_other, ValueError, r'teacher: anchor 6: [\s\S]*head.fc'),
        (_not_finite, ValueError, r'teacher: anchor 6: [\s\S]*NaN or infinite weights'),
        (lambda folder: (folder / 'epoch_6.pth').write_text('x'), ValueError, 'teacher: anchor 6: '),
    ],
    ids=['missing', 'another architecture', 'not finite', 'no checkpoint'],
)
def test_anchors_that_cannot_teach_are_named_before_training(student, tmp_path, anchors, change, error, match):
    change(tmp_path)
    model = distill(student, KD, teacher=spec(tmp_path))
    with pytest.raises(error, match=match):
        model.init_weights()


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'anchors': []}, r'teacher \(Route\) has anchors=\[\], expected a list of what is put for {} in checkpoint'),
        ({'anchors': [3, 6, '3']}, 'each once'),
        ({'anchors': 3}, 'has anchors=3'),
        ({'anchors': [3, None]}, r'anchors=\[3, None\]'),
        ({'checkpoint': 'epoch_3.pth'}, r"has checkpoint='epoch_3.pth', expected a path with {} in it"),
        ({'switch': [3]}, r'teacher \(Route\): switch=\[3\] given'),
        ({'swich': [3, 6]}, r"unknown keys \['swich'\] \(did you mean switch"),
        ({'untrained': True}, r"unknown keys \['untrained'\]"),
    ],
)
def test_mistakes(student, tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        made(student, tmp_path, **change)


@pytest.mark.parametrize('key', ['anchors', 'checkpoint'])
def test_what_is_lacking_is_shown(student, tmp_path, key):
    lacking = {k: v for k, v in spec(tmp_path).items() if k != key}
    with pytest.raises(ValueError, match=r"expected dict\(type='Route', .*anchors=\[8, 16, 24, 30\]"):
        build_source(lacking, 'teacher', student)


def test_nobody_says_which_epoch_it_is(student, tmp_path, anchors):
    model = distill(student, KD, teacher=spec(tmp_path, switch=[3, 6]))
    with pytest.raises(RuntimeError, match="the teacher 'teacher' needs the epoch, and nobody says which epoch it is"):
        model(**batch(), mode='loss')
    MessageHub.get_current_instance().update_info('epoch', 6)
    value = model(**batch(), mode='loss')['loss_kd']
    torch.testing.assert_close(
        value, kd_loss(student(batch()['inputs'], mode='tensor'), anchors['9'](batch()['inputs']), 4.0)
    )


MARGINS = {'loss_ofd': {'type': 'OFDLoss', 'on': ['backbone.layer3.1.relu:input', 'backbone.layer4.1.relu:input']}}


def test_losses_that_take_something_from_its_weights_are_refused(student, tmp_path, anchors):
    model = distill(student, MARGINS, teacher=spec(tmp_path))
    with pytest.raises(ValueError, match=r"losses\['loss_ofd'\].*the weights of 'teacher' before training, and these"):
        model.init_weights()
    distill(build(student_cfg()), MARGINS, teacher=spec(tmp_path, anchors=['9'])).init_weights()


def test_the_same_of_peers(student):
    model = distill(student, MARGINS, teacher={'type': 'Peer', 'model': build(student_cfg(), 7)})
    with pytest.raises(ValueError, match="the weights of 'teacher' before training, and these change while it teaches"):
        model.init_weights()


def test_detectors_are_read_on_the_students_rois(tmp_path):
    for seed in (1, 2):
        torch.save(detector(faster_rcnn_cfg(), seed).state_dict(), tmp_path / f'epoch_{seed}.pth')
    teacher = {'type': 'Route', 'model': faster_rcnn_cfg(), 'checkpoint': str(tmp_path / 'epoch_{}.pth')}
    hub = MessageHub.get_current_instance()
    hub.update_info('max_epochs', 2)
    model = distill(detector(faster_rcnn_cfg()), DKD, teacher={**teacher, 'anchors': [1, 2]}).train()
    for epoch, seed in ((0, 1), (1, 2)):
        hub.update_info('epoch', epoch)
        frozen = {'model': faster_rcnn_cfg(), 'checkpoint': str(tmp_path / f'epoch_{seed}.pth')}
        alone = distill(detector(faster_rcnn_cfg()), DKD, teacher=frozen).train()
        values = []
        for one in (model, alone):
            torch.manual_seed(0)  # RoIs are sampled
            values.append(one(**scenes(), mode='loss')['loss_dkd'])
        assert torch.equal(*values)


def config(folder: Path, epochs: int = 4, **teacher: Any) -> Any:
    """The route's config on three anchors that stand beside the run's folder, without validation."""
    cfg = digits_cfg(folder, epochs, 'digits/rco_resnet.py')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}]
    cfg.model.teacher = {**spec(folder.parent), **teacher}
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    return cfg


def same(model, other):
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_one_anchor_is_plain_kd(tmp_path, anchors):
    models = []
    frozen = {'model': student_cfg(), 'checkpoint': str(tmp_path / 'epoch_6.pth')}
    for name, teacher in (('route', spec(tmp_path, anchors=['6'])), ('plain', frozen)):
        cfg = config(tmp_path / name, 2)
        cfg.model.teacher = teacher
        models.append(runner_of(cfg).train())
    same(*models)


def test_killed_and_resumed_it_lands_on_the_right_anchor(tmp_path, anchors):
    """Iterations: four in each epoch; the anchors change before the epochs 2 and 3."""
    whole = runner_of(config(tmp_path / 'whole')).train()
    for iteration in (7, 14):
        folder = tmp_path / f'part{iteration}'
        kill(config(folder), iteration)
        same(resumed(config(folder)), whole)
    again = runner_of(config(tmp_path / 'one', anchors=['9'], switch=None)).train()
    assert not torch.equal(again.head.fc.weight, whole.head.fc.weight)


def test_iterations_are_counted_where_there_are_no_epochs(tmp_path, anchors, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr('mmkd_plugin.teachers.route.print_log', lambda text, *_: told.append(text))

    def iterations(folder, **teacher):
        cfg = config(folder, **teacher)
        cfg.train_cfg = {'type': 'IterBasedTrainLoop', 'max_iters': 6, 'val_interval': 100}
        cfg.train_dataloader.sampler = {'type': 'InfiniteSampler', 'shuffle': True}
        cfg.param_scheduler = None
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2)
        return cfg

    runner_of(iterations(tmp_path / 'run', by_epoch=False)).train()
    assert [line.split('teaches from')[1] for line in told] == [
        ' epoch 0, iteration 0', ' epoch 0, iteration 2', ' epoch 0, iteration 4',
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r'3 anchors given, and this run has 1 epoch. If it is iteration-based'):
        runner_of(iterations(tmp_path / 'wrong')).train()


SEARCH = {'type': 'greedy', 'every': 1, 'threshold': 1.2, 'samples': 12}


def chosen():
    return MessageHub.get_current_instance().runtime_info['distill_route']['teacher']


def test_a_search_chooses_by_the_divergence_and_resumes(tmp_path, anchors, monkeypatch):
    gaps: list[list[float]] = []
    # always the next, so that there are two stages to resume in

    def choose(self: Any, current: int, seen: list[float]) -> int:
        gaps.append(seen)
        return current + 1

    monkeypatch.setattr(Greedy, 'choose', choose)
    whole = runner_of(config(tmp_path / 'whole', switch=SEARCH)).train()
    assert chosen() == [[1, 1], [2, 2]]
    assert [len(seen) for seen in gaps] == [3, 2]
    assert all(gap > 0 for seen in gaps for gap in seen)
    for iteration in (6, 9):
        folder = tmp_path / f'part{iteration}'
        kill(config(folder, switch=SEARCH), iteration)
        same(resumed(config(folder, switch=SEARCH)), whole)
        assert chosen() == [[1, 1], [2, 2]]
    first, second = gaps[:2]
    # killed in the epoch 1 and resumed before it; killed in the epoch 2 and resumed before it
    assert gaps[2:] == [first, first, second, first, second, second]


def test_what_a_search_measures(tmp_path, anchors, monkeypatch):
    """On all training images, as an independent loop over them measures it."""
    cfg = config(tmp_path / 'run', 2, switch={**SEARCH, 'samples': 40, 'threshold': 100.0})
    cfg.train_dataloader.dataset.pipeline = [{'type': 'PackInputs'}]
    runner = runner_of(cfg)
    seen: dict[str, Any] = {}

    class Watch(DistillHook):
        priority = 'LOW'

        @torch.no_grad()
        def before_train_epoch(self, runner: Any) -> None:
            if runner.epoch == 1:
                net = copy.deepcopy(runner.model).eval()
                data = runner.train_dataloader.collate_fn([runner.train_dataloader.dataset[i] for i in range(40)])
                images = net.data_preprocessor(data)['inputs']
                z = net(images, mode='tensor').log_softmax(1)
                seen['gaps'] = [
                    float((p.softmax(1) * (p.log_softmax(1) - z)).sum(1).mean())
                    for p in (anchor(images) for anchor in anchors.values())
                ]

    told: dict[int, list[float]] = {}
    runner.register_hook(Watch())
    monkeypatch.setattr(Greedy, 'choose', lambda self, current, gaps: told.setdefault(0, gaps) and 2)
    runner.train()
    assert told[0] == pytest.approx(seen['gaps'], rel=1e-3)


def test_a_search_needs_logits_and_somebody_who_searches(student, tmp_path, anchors):
    cfg = config(tmp_path / 'run', switch=SEARCH)
    cfg.model.losses = {'loss_at': {'type': 'ATLoss', 'on': 'backbone.layer3'}}
    with pytest.raises(RuntimeError, match='a search compares predictions, and no loss compares logits'):
        runner_of(cfg).train()
    model = distill(student, KD, teacher=spec(tmp_path, switch=SEARCH))
    hub = MessageHub.get_current_instance()
    hub.update_info('epoch', 0)
    with pytest.raises(RuntimeError, match=r"nobody searches for anchors: add dict\(type='DistillHook'\)"):
        model(**batch(), mode='loss')


@pytest.mark.parametrize(('optimizer', 'kept'), [(False, [True, True]), (True, [False, False])])
def test_the_learning_rate_goes_on_or_begins_anew(tmp_path, anchors, optimizer, kept):
    """Momentum stays, or is forgotten as well."""
    seen = []

    class Watch(PhaseHook):
        priority = 'VERY_LOW'

        def __init__(self):
            pass

        def before_train(self, runner):
            pass

        def before_train_epoch(self, runner):
            own = runner.optim_wrapper.optimizer
            seen.append((round(own.param_groups[0]['lr'] / runner.cfg.optim_wrapper.optimizer.lr, 6), bool(own.state)))

    def run(*hooks):
        seen.clear()
        cfg = config(tmp_path / f'run{len(hooks)}')
        cfg.param_scheduler = {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1}
        cfg.custom_hooks += hooks
        runner = runner_of(cfg)
        runner.register_hook(Watch(), 'VERY_LOW')
        runner.train()
        return list(seen)

    assert run() == [(1, False), (0.1, True), (0.1, True), (0.1, True)]
    # anchors change at the epochs 2 and 3
    assert run({'type': 'PhaseHook', 'optimizer': optimizer}) == [(1, False), (0.1, True), (1, kept[0]), (1, kept[1])]


def test_every_anchor_is_evaluated_and_the_last_one_must_be_good(tmp_path):
    """The shipped teacher is the last anchor, the others know nothing."""
    good = torch.load(ROOT / 'mmkd_plugin/checkpoints/digits/resnet_teacher.pth')
    cfg = digits_cfg(tmp_path / 'run', 2, 'digits/rco_resnet.py')
    poor = build(teacher_cfg(), 4).state_dict()
    torch.save(poor, tmp_path / 'epoch_1.pth')
    torch.save(good, tmp_path / 'epoch_2.pth')
    cfg.model.teacher.update(checkpoint=str(tmp_path / 'epoch_{}.pth'), anchors=[1, 2])
    cfg.custom_hooks = [{'type': 'TeacherEvalHook', 'at_least': {'accuracy/top1': 90.0}}]
    runner = runner_of(cfg)
    runner.train()
    scalars = {key.removeprefix('val/'): log.current() for key, log in runner.message_hub.log_scalars.items()}
    assert scalars['teacher@1/accuracy/top1'] < 50
    assert scalars['teacher@2/accuracy/top1'] > 90
    cfg.model.teacher.anchors = [2, 1]
    with pytest.raises(RuntimeError, match=r'teacher@1 reaches accuracy/top1 .* Training was not started'):
        runner_of(cfg).train()


def teacher_cfg():
    cfg = digits_cfg(Path('unused'), 1, 'digits/resnet_teacher.py')
    return {**cfg.model.to_dict(), 'data_preprocessor': cfg.data_preprocessor.to_dict()}


TOGETHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from mmengine.logging import MessageHub
from tests.teachers.test_route import SEARCH, spec
from tests.end_to_end.helpers import tiny_options, train_here
from mmengine.config import Config
import mmkd_plugin.launch as launch
folder = Path(sys.argv[2])
read = launch._read_config

def with_route(args):
    cfg = read(args)
    cfg.model.teacher = spec(folder, switch={**SEARCH, 'every': 2, 'threshold': 3.0})
    return cfg

launch._read_config = with_route
train_here('configs/digits/rco_resnet.py', folder / 'run', '--launcher', 'pytorch', '--no-validate',
           **tiny_options(4, **{'train_dataloader.batch_size': 5}))
print('chosen', MessageHub.get_current_instance().runtime_info['distill_route'], flush=True)
"""


def test_processes_choose_the_same(tmp_path, anchors):
    script = tmp_path / 'together.py'
    script.write_text(TOGETHER)
    lines = [[x for x in p.stdout.splitlines() if x.startswith('chosen')] for p in together(script, ROOT, tmp_path)]
    assert lines[0] == lines[1] != []
