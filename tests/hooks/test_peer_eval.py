"""Metrics of peers, at every validation beside the student's."""

import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import MODELS

from mmkd_plugin.files.checkpoint import read_checkpoint, state_dict_of
from tests.end_to_end.helpers import ROOT, digits_cfg, runner_of, together

pytestmark = pytest.mark.openmmlab
TEACHER = 'mmkd_plugin::digits/resnet_teacher.py'
WEIGHTS = ROOT / 'mmkd_plugin/checkpoints/digits/resnet_teacher.pth'


def config(folder, epochs=2, name='digits/mutual_wide_resnet.py', hooks=(), **more):
    cfg = digits_cfg(folder, epochs, name, log_level='INFO', **{'train_dataloader.dataset.per_class': 10, **more})
    cfg.custom_hooks = [*cfg.custom_hooks, {'type': 'PeerEvalHook'}, *hooks]
    return cfg


def logged(folder):
    """The last line of validation."""
    lines = [json.loads(line) for line in next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    return next(line for line in reversed(lines) if 'accuracy/top1' in line)


def accuracy(network, loader):
    """By hand."""
    network.eval()
    with torch.no_grad():
        found = [sample for batch in loader for sample in network.val_step(batch)]
    hits = [sample.pred_label.item() == sample.gt_label.item() for sample in found]
    return 100 * sum(hits) / len(hits)


@pytest.mark.parametrize('ema', [False, True], ids=['plain', 'ema'])
def test_it_is_what_the_checkpoints_peer_reaches_as_a_plain_model(tmp_path, ema):
    """The peer starts from the teacher's weights, so that it knows more than the student."""
    cfg = config(tmp_path, hooks=[{'type': 'EMAHook', 'momentum': 0.2}] * ema)
    cfg.optim_wrapper.optimizer.lr = cfg.param_scheduler.eta_max = 0.01
    cfg.model.teachers.wide = {'type': 'Peer', 'config': TEACHER, 'checkpoint': str(WEIGHTS)}
    runner = runner_of(cfg)
    runner.train()
    line, checkpoint = logged(tmp_path), read_checkpoint(tmp_path / 'epoch_2.pth')
    for key, name, peer in (('', 'digits/resnet_student.py', None), ('wide/', 'digits/resnet_teacher.py', 'wide')):
        plain = digits_cfg(tmp_path, config=name)
        plain.model.data_preprocessor = plain.data_preprocessor
        model = MODELS.build(plain.model)
        model.load_state_dict(state_dict_of(checkpoint, peer=peer), strict=True)
        assert line[f'{key}accuracy/top1'] == pytest.approx(accuracy(model, runner.val_dataloader), abs=1e-3)
    assert line['wide/accuracy/top1'] > 40 > line['accuracy/top1']


def test_the_student_is_validated_as_without_it(tmp_path):
    with_it, without = config(tmp_path / 'a'), config(tmp_path / 'b')
    without.custom_hooks.pop()
    states = [runner_of(cfg).train().state_dict() for cfg in (with_it, without)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert logged(tmp_path / 'a')['accuracy/top1'] == logged(tmp_path / 'b')['accuracy/top1']


def test_predictions_of_the_student_stay(tmp_path):
    class Later(Hook):
        priority = 'LOWEST'

        def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            scores = runner.model.head.predict(
                runner.model.extract_feat(runner.model.data_preprocessor(data_batch)['inputs'])
            )
            assert all(torch.equal(a.pred_score, b.pred_score) for a, b in zip(outputs, scores, strict=True))
            seen.append(len(outputs))

    seen: list[int] = []
    runner = runner_of(config(tmp_path, 1))
    runner.register_hook(Later())
    runner.train()
    assert sum(seen) == 100


def test_files_of_metrics_have_names_of_their_own(tmp_path):
    cfg = config(tmp_path, 1)
    cfg.val_evaluator = [cfg.val_evaluator, {'type': 'DumpResults', 'out_file_path': str(tmp_path / 'found.pkl')}]
    runner_of(cfg).train()
    assert {path.name for path in tmp_path.glob('*.pkl')} == {'found.pkl', 'found_wide.pkl'}


def test_mistakes(tmp_path):
    alone = digits_cfg(tmp_path, 1)
    alone.custom_hooks = [{'type': 'PeerEvalHook'}]
    with pytest.raises(RuntimeError, match='no teacher is a dict'):
        runner_of(alone).train()
    cfg = config(tmp_path)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    with pytest.raises(RuntimeError, match='needs val_dataloader'):
        runner_of(cfg).train()


TWO = """
import sys
sys.path.insert(0, sys.argv[1])
from mmengine.logging import MessageHub
from tests.end_to_end.helpers import tiny_options, train_here
train_here('configs/digits/mutual_wide_resnet.py', sys.argv[2], '--launcher', 'pytorch',
           **tiny_options(1, **{'train_dataloader.batch_size': 5}))
hub = MessageHub.get_current_instance()
for key in ('val/accuracy/top1', 'val/wide/accuracy/top1'):
    print(key, float(hub.get_scalar(key).current()), flush=True)
"""


def test_two_processes_by_the_command_line(tmp_path):
    """Each evaluates half, and both log the whole, which is that of the checkpoint; train.py has added the hook."""
    script = tmp_path / 'two.py'
    script.write_text(TWO)
    outputs = [process.stdout.splitlines() for process in together(script, ROOT, tmp_path / 'run')]
    lines = [[line for line in own if line.startswith('val/')] for own in outputs]
    assert lines[0] == lines[1]
    cfg = digits_cfg(tmp_path / 'one', 1, 'digits/mutual_wide_resnet.py')
    cfg.load_from = str(tmp_path / 'run/epoch_1.pth')
    runner = runner_of(cfg)
    runner.load_or_resume()
    peer, loader = runner.model.distill.peers.wide, runner.build_dataloader(cfg.val_dataloader)
    assert float(lines[0][1].split()[1]) == pytest.approx(accuracy(peer, loader), abs=1e-3)
