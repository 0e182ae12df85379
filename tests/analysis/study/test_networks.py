"""Runs from files and folders, and their paths."""

import itertools

import pytest
import torch

from mmkd_plugin.analysis.study.networks import between_checkpoints, build_student, digest_of, prepare, read_runs
from tests.analysis.study.runs import make_run, student_config, weights

pytestmark = pytest.mark.openmmlab


@pytest.fixture(scope='module')
def model():
    return build_student(student_config())


def test_a_folder_in_order_without_its_start(tmp_path):
    make_run(tmp_path, 1, (0, 5, 40, 10, 20))
    (run,) = read_runs([str(tmp_path)], 'student')
    assert [checkpoint.number for checkpoint in run.checkpoints] == [5, 10, 20, 40]
    assert run.start is not None
    assert run.start.number == 0
    for count, numbers in ((1, [40]), (2, [5, 40]), (3, [5, 20, 40]), (9, [5, 10, 20, 40])):
        (run,) = read_runs([str(tmp_path)], 'student', count)
        assert [checkpoint.number for checkpoint in run.checkpoints] == numbers
    (run,) = read_runs([str(tmp_path / 'explain/epoch_10.pth')], 'student')
    assert [checkpoint.number for checkpoint in run.checkpoints] == [10]


def test_a_folder_as_training_leaves_it(tmp_path):
    for name in ('epoch_2.pth', 'epoch_10.pth', 'best_accuracy_epoch_2.pth', 'notes.txt'):
        (tmp_path / name).touch()
    (run,) = read_runs([str(tmp_path)], 'baseline')
    assert [checkpoint.number for checkpoint in run.checkpoints] == [2, 10]
    (tmp_path / 'iter_3.pth').touch()
    with pytest.raises(ValueError, match='by epoch and by iteration'):
        read_runs([str(tmp_path)], 'baseline')


def test_paths(tmp_path, model):
    """Over steps where all checkpoints tell it, else from one to the next, the start included in both."""
    make_run(tmp_path, 1, (0, 2, 4))
    (run,) = read_runs([str(tmp_path)], 'student')
    prepare(run, model, ['backbone.layer4'])
    assert run.by_steps
    assert run.path['backbone.layer4'].tolist() == [3.0, 6.0]
    between_checkpoints(run, model, ['backbone.layer4'])
    assert not run.by_steps
    names = [k for k in weights(0) if k.startswith('backbone.layer4') and weights(0)[k].ndim > 1]
    flat = [torch.cat([weights(10 + i)[name].flatten() for name in names]).double() for i in range(3)]
    steps = [float((b - a).norm() / flat[0].norm()) for a, b in itertools.pairwise(flat)]
    assert run.path['backbone.layer4'].tolist() == pytest.approx([steps[0], sum(steps)])


def test_weights_have_names_of_their_own():
    one, other = weights(1), weights(1)
    assert digest_of(one) == digest_of(dict(reversed(other.items())))
    other['head.fc.bias'] = other['head.fc.bias'] + 1e-7
    assert digest_of(one) != digest_of(other)
