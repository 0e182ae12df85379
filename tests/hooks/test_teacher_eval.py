import json

import pytest
import torch

from mmkd_plugin.files.atomic import save_checkpoint
from tests.end_to_end.helpers import ROOT, digits_cfg, runner_of

PERFECT = 'mmkd_plugin::digits/resnet_teacher.py'


def run(tmp_path, hook, **changes):
    cfg = digits_cfg(tmp_path, epochs=1, **changes)
    cfg.custom_hooks = [hook]
    runner = runner_of(cfg)
    runner.train()
    return runner


@pytest.mark.openmmlab
def test_metric_is_logged_beside_the_students(tmp_path):
    runner = run(tmp_path, {'type': 'TeacherEvalHook', 'at_least': {'accuracy/top1': 90.0}})
    log = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    line = json.loads(log[-1])
    assert line['teacher/accuracy/top1'] >= 90
    assert 'accuracy/top1' in line
    assert runner.hooks


@pytest.mark.openmmlab
def test_bad_teacher_stops_before_training(tmp_path):
    cfg = digits_cfg(tmp_path, epochs=1)
    cfg.model.teacher = {'config': PERFECT.replace('teacher', 'student'), 'untrained': True}
    cfg.custom_hooks = [{'type': 'TeacherEvalHook', 'at_least': {'accuracy/top1': 98.0}}]
    runner = runner_of(cfg)
    before = runner.model.head.fc.weight.clone()
    with pytest.raises(RuntimeError, match=r'teacher reaches accuracy/top1 \d+.*Training was not started'):
        runner.train()
    assert runner.iter == 0
    assert before.shape == runner.model.head.fc.weight.shape
    cfg.custom_hooks[0]['at_least'] = {'mAP': 1}
    with pytest.raises(RuntimeError, match="names 'mAP', the evaluator gives"):
        runner_of(cfg).train()


@pytest.mark.openmmlab
def test_plain_model_and_run_without_validation(tmp_path):
    cfg = digits_cfg(tmp_path, epochs=1, config='digits/resnet_student.py')
    cfg.custom_hooks = [{'type': 'TeacherEvalHook'}]
    with pytest.raises(RuntimeError, match='without teachers'):
        runner_of(cfg).train()
    cfg = digits_cfg(tmp_path, epochs=1)
    cfg.custom_hooks = [{'type': 'TeacherEvalHook'}]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    with pytest.raises(RuntimeError, match='needs val_dataloader'):
        runner_of(cfg).train()


@pytest.mark.openmmlab
def test_training_is_the_same_with_and_without_it(tmp_path):
    weights = [
        run(tmp_path / str(i), hook).model.state_dict()
        for i, hook in enumerate([{'type': 'TeacherEvalHook'}, {'type': 'NaiveVisualizationHook', 'interval': 10**9}])
    ]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))


@pytest.mark.openmmlab
@pytest.mark.parametrize(('classes', 'stops'), [(list('9876543210'), True), (list('abcdefghij'), False)])
def test_classes_of_the_checkpoint(tmp_path, classes, stops):
    checkpoint = torch.load(ROOT / 'mmkd_plugin/checkpoints/digits/resnet_teacher.pth')
    checkpoint['meta'] = {'dataset_meta': {'classes': classes}}
    save_checkpoint(checkpoint, tmp_path / 'teacher.pth')
    changes = {'model.teacher': {'config': PERFECT, 'checkpoint': str(tmp_path / 'teacher.pth')}, 'log_level': 'INFO'}
    if stops:
        with pytest.raises(RuntimeError, match=r"class 0 is '9' there and '0' here: the same classes in another order"):
            run(tmp_path, {'type': 'TeacherEvalHook'}, **changes)
    else:
        run(tmp_path, {'type': 'TeacherEvalHook'}, **changes)
        assert "class 0 is 'a' there and '0' here. Logits" in next(tmp_path.glob('*/*.log')).read_text()
