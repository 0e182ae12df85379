"""SemCKD: the formula, attention, any numbers of stages, and batches of other sizes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkd_plugin import distill
from mmkd_plugin.losses import SemCKDLoss, semckd_attention, semckd_loss
from mmkd_plugin.losses.maps.semckd import semckd_similarities
from tests.conftest import batch

from ..naive_features import normal
from . import naive_connected as naive

STAGES = [(3, 2, 4, 4), (3, 3, 2, 2)], [(3, 2, 4, 4), (3, 1, 2, 2)]
UNEQUAL = [(2, 2, 3, 4)], [(2, 1, 4, 4), (2, 2, 2, 2), (2, 2, 3, 4)]
MORE_STUDENTS = [(3, 2, 2, 2), (3, 1, 2, 1)], [(3, 2, 2, 2)]


def built(student: Any, teacher: Any, batch_size: int | None = 8, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    loss = SemCKDLoss(batch_size, **kwargs)
    loss.build_connectors(student, teacher)
    return loss.double()


def taps(student: Any, teacher: Any) -> tuple[list[Tensor], list[Tensor]]:
    return normal(*student), normal(*teacher, seed=1)


def of(count: int, shapes: Any) -> list[tuple[int, ...]]:
    return [(count, *shape[1:]) for shape in shapes]


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('shapes', [STAGES, UNEQUAL, MORE_STUDENTS])
def test_value_and_gradients_are_those_of_the_formula(shapes, training):
    student, teacher = taps(*shapes)
    loss = built(*shapes, loss_weight=0.7).train(training)
    targets = [tap.tolist() for tap in teacher]
    naive.check(
        loss,
        student,
        lambda: loss(student, teacher),
        lambda values: 0.7 * naive.semckd(values, targets, 8, training),
    )


def test_value_of_a_whole_batch():
    student, teacher = taps(of(8, MORE_STUDENTS[0]), of(8, MORE_STUDENTS[1]))
    loss = built(*MORE_STUDENTS, loss_weight=1.0)
    values = {f'student.{i}': tap.tolist() for i, tap in enumerate(student)}
    values |= {name: tensor.tolist() for name, tensor in loss.state_dict().items()}
    expected = naive.semckd(values, [tap.tolist() for tap in teacher], 8, training=True)
    assert loss(student, teacher).item() == pytest.approx(expected.real, rel=1e-9)


def test_attention_rows_sum_to_one_and_stay_soft():
    queries, keys = normal((5, 2, 4), (5, 3, 4))
    attention = semckd_attention(queries, keys)
    assert attention.shape == (5, 2, 3)
    torch.testing.assert_close(attention.sum(2), torch.ones(5, 2, dtype=torch.float64))
    # cosines lie in [−1, 1]: of three, e^−1 / (e^−1 + 2e) = 0.0634 and e / (e + 2e^−1) = 0.7870
    assert attention.min() > 0.0634
    assert attention.max() < 0.7870
    same = torch.ones(1, 1, 4, dtype=torch.float64)
    extreme = semckd_attention(same, torch.cat([same, -same, -same], dim=1))
    assert extreme.max().item() == pytest.approx(0.7870, abs=1e-4)
    assert semckd_attention(same, torch.cat([-same, same, same], 1)).min().item() == pytest.approx(0.0634, abs=1e-4)
    torch.testing.assert_close(semckd_attention(7 * queries, keys), attention)


def test_with_one_teacher_stage_it_is_a_mean_squared_error():
    student, teacher = taps(*MORE_STUDENTS)
    loss = built(*MORE_STUDENTS, loss_weight=1.0).eval()
    first = (loss.projections[0][0](student[0]) - teacher[0]).square().mean()
    pooled = torch.nn.functional.adaptive_avg_pool2d(teacher[0], (2, 1))
    second = (loss.projections[1][0](student[1]) - pooled).square().mean()
    torch.testing.assert_close(loss(student, teacher), (first + second) / 2)


def test_zero_where_every_projection_is_right():
    (target,) = normal((3, 2, 4, 4))
    attention = semckd_attention(*normal((3, 2, 4), (3, 2, 4)))
    assert semckd_loss([[target] * 2] * 2, [[target] * 2] * 2, attention) == 0
    # 1 off everywhere: rows sum to 1, student stages are averaged
    assert semckd_loss([[target + 1] * 2] * 2, [[target] * 2] * 2, attention).item() == pytest.approx(1)


def test_similarities_are_of_the_flattened_maps():
    (maps,) = normal((3, 2, 2, 2))
    found = semckd_similarities(maps, 5)
    assert found.shape == (3, 5)
    for i in range(3):
        for j in range(3):
            assert found[i, j].item() == pytest.approx((maps[i] * maps[j]).sum().item())
    assert not found[:, 3:].any()


def test_similarities_are_computed_in_float32():
    """Sums over whole maps, of more than float16 holds; the MLPs, too, since they read these."""
    shapes = [(4, 64, 32, 32)], [(4, 64, 32, 32), (4, 8, 4, 4)]
    loss = built(*shapes).float()
    student, teacher = ([tap.float() for tap in side] for side in taps(*shapes))
    assert semckd_similarities(student[0].half(), 4).max() > 65504
    with torch.autocast('cpu', dtype=torch.float16):
        attention = loss._attention([tap.half() for tap in student], [tap.half() for tap in teacher])
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention, loss._attention(student, teacher), rtol=1e-3, atol=1e-3)


def test_missing_samples_of_a_last_batch_are_zeros():
    """They are as samples that are all zero, which themselves do not count."""
    student, teacher = taps(of(5, STAGES[0]), of(5, STAGES[1]))
    loss = built(*STAGES, loss_weight=1.0).eval()
    padded = [[torch.cat([tap, tap.new_zeros(3, *tap.shape[1:])]) for tap in side] for side in (student, teacher)]
    torch.testing.assert_close(loss._attention(student, teacher), loss._attention(*padded)[:5])
    assert loss._attention([tap[:1] for tap in student], [tap[:1] for tap in teacher]).shape == (1, 2, 2)


def test_a_larger_batch_is_refused():
    loss = built(*STAGES)
    assert loss(*taps(of(8, STAGES[0]), of(8, STAGES[1]))).isfinite()
    with pytest.raises(ValueError, match=r'a batch of 9 given, expected at most batch_size=8.*train_dataloader'):
        loss(*taps(of(9, STAGES[0]), of(9, STAGES[1])))


@pytest.mark.parametrize('count', [1, 2, 8])
def test_gradients_reach_all_that_learns(count):
    student, teacher = taps(of(count, STAGES[0]), of(count, STAGES[1]))
    wanted = [tap.requires_grad_() for tap in (*student, *teacher)]
    loss = built(*STAGES)
    loss(student, teacher).backward()
    for name, parameter in loss.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert [tap.grad is None for tap in wanted] == [False] * 2 + [True] * 2


def test_each_map_is_averaged_once_for_each_size(monkeypatch):
    pool, sizes = torch.nn.functional.adaptive_avg_pool2d, []

    def counted(tensor: Tensor, size: Any) -> Tensor:
        sizes.append((tuple(tensor.shape), size))
        return pool(tensor, size)

    monkeypatch.setattr(torch.nn.functional, 'adaptive_avg_pool2d', counted)
    shapes = [(2, 2, 8, 8), (2, 2, 4, 4), (2, 2, 4, 4)], [(2, 3, 8, 8), (2, 3, 4, 4), (2, 4, 4, 4)]
    built(*shapes)(*taps(*shapes))
    assert sorted(sizes) == [((2, 2, 8, 8), (4, 4)), ((2, 3, 8, 8), (4, 4))]


def test_learnable_parts():
    loss = built([(2, 5, 4, 4)], [(2, 3, 4, 4), (2, 6, 2, 2)], batch_size=20)
    assert [len(part) for part in (loss.queries, loss.keys, loss.projections, loss.projections[0])] == [1, 2, 1, 2]
    for first, relu, second in (*loss.queries, *loss.keys):
        assert isinstance(relu, nn.ReLU)
        assert (first.in_features, first.out_features, second.out_features) == (20, 10, 5)
    for projection, out in zip(loss.projections[0], (3, 6), strict=True):
        convs = [module for module in projection if isinstance(module, nn.Conv2d)]
        assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convs] == [
            (5, 2 * out, 1),
            (2 * out, 2 * out, 3),
            (2 * out, out, 1),
        ]
        assert all(conv.bias is None for conv in convs)
    assert repr(SemCKDLoss()) == repr(SemCKDLoss(batch_size=None, loss_weight=400.0))


def test_the_batch_size_must_be_given():
    with pytest.raises(ValueError, match=r'batch_size=None given.*\{\{_base_.train_dataloader.batch_size\}\}'):
        SemCKDLoss().build_connectors(*STAGES)


@pytest.mark.parametrize('value', [7, 1])
def test_a_batch_too_small_to_embed_is_refused(value):
    with pytest.raises(ValueError, match=f'batch_size={value} given, expected a whole number >= 8'):
        SemCKDLoss(value)


@pytest.mark.parametrize('shapes', [([], STAGES[1]), (STAGES[0], []), ([(2, 3)], STAGES[1])])
def test_stages_that_are_no_maps_are_refused(shapes):
    with pytest.raises(ValueError, match='expected maps'):
        SemCKDLoss(8).build_connectors(*shapes)


def test_other_numbers_of_stages_are_refused():
    student, teacher = taps(*STAGES)
    with pytest.raises(ValueError, match='2 student and 1 teacher stages given, expected 2 and 2'):
        built(*STAGES)(student, teacher[:1])


@pytest.mark.openmmlab
def test_a_training_step_with_unequal_stages(student, teacher):
    on = {'student': ['backbone.layer2', 'backbone.layer4'], 'teacher': [f'backbone.layer{i}' for i in (1, 2, 3)]}
    losses = {'loss_semckd': {'type': 'SemCKDLoss', 'on': on, 'batch_size': 16}}
    model = distill(student, losses, teacher=teacher)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {name: p.detach().clone() for name, p in model.distill.named_parameters()}
    total, values = model.parse_losses(model(**batch(13), mode='loss'))
    assert values['loss_semckd'] > 0
    total.backward()
    optimizer.step()
    assert len(before) == 4 * (2 + 3) + 7 * 6
    assert all(not torch.equal(p, before[name]) for name, p in model.distill.named_parameters())
    with pytest.raises(ValueError, match='a batch of 17 given, expected at most batch_size=16'):
        model(**batch(17), mode='loss')


@pytest.mark.openmmlab
def test_without_a_batch_size_it_is_told_at_build(student, teacher):
    losses = {'loss_semckd': {'type': 'SemCKDLoss', 'on': 'backbone.layer2'}}
    with pytest.raises(ValueError, match=r"losses\['loss_semckd'\].*batch_size=None given, expected the batch size"):
        distill(student, losses, teacher=teacher)
