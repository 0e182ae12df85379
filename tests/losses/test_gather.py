"""Losses that relate the samples of a batch, over the batches of two processes (gloo)."""

import inspect
from pathlib import Path

import pytest
import torch

from mmkd_plugin.losses import RKDLoss, SampleRelationLoss
from mmkd_plugin.losses.gather import gather_rows
from tests.processes import ROOT, together

from .test_every_loss import LOSSES, SETTINGS

#: Every setting of every loss that can gather.
CASES = [case for case in SETTINGS if 'gather' in inspect.signature(LOSSES[case.split(':')[0]]).parameters]

EVERY_LOSS = '''
import sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from torch import nn
from tests.losses.test_every_loss import NEEDS, Trial, trial
from tests.losses.test_gather import CASES
dist.init_process_group('gloo')
rank = dist.get_rank()
torch.set_num_threads(1)


class Front(nn.Module):
    """A small linear layer for each of the student's taps."""

    def __init__(self, taps):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        sizes = [tap.size(1) for tap in taps]
        mixes = [torch.eye(size) + 0.3 * torch.randn(size, size, generator=generator) for size in sizes]
        self.mixes = nn.ParameterList([nn.Parameter(mix.double()) for mix in mixes])

    def forward(self, taps):
        return [torch.einsum('nc...,dc->nd...', tap, mix) for tap, mix in zip(taps, self.mixes)]


def count(taps):
    return len(next(iter(taps.values()))[0])


def tried(case, taps, gather, start, stop):
    """The value of some of the rows, and its gradients by the layers in front and by the connectors."""
    loss = trial(case, gather=gather).double().loss
    loss.train(not any(True for _ in loss.buffers()))  # with statistics, those that run
    needs = {name: NEEDS[name](count(taps)) for name in loss.needs}
    needs = {name: need[start:stop] if isinstance(need, torch.Tensor) else need for name, need in needs.items()}
    own = {side: [tap[start:stop] for tap in sides] for side, sides in taps.items()}
    front = Front(own.get('student', []))
    if 'student' in own:
        own['student'] = front(own['student'])
    value = Trial(loss, own, needs).value()
    parameters = [*front.parameters(), *loss.parameters()]
    return value.detach(), torch.autograd.grad(value, parameters)


for case in CASES:
    single = {side: [tap.detach().double() for tap in taps] for side, taps in trial(case).taps.items()}
    known = single.keys() <= {'student', 'teacher', 'teachers'}
    assert known and single.keys() - {'student'}, f'{case}: teach this test about {list(single)}'
    double = {side: [torch.cat([tap, 1 - tap.flip(0) ** 2]) for tap in taps] for side, taps in single.items()}
    for taps, first in [(double, 4), (double, 3), (double, 8), (double, 0), (single, 2), (single, 1)]:
        rows = count(taps)
        start, stop = [(0, first), (first, rows)][rank]
        expected, gradients = tried(case, taps, False, 0, rows)
        found, own = tried(case, taps, True, start, stop)
        where = f'{case}, {first} rows of {rows}: '
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13, msg=lambda m: where + m)
        for gradient, joined in zip(own, gradients):
            gradient = gradient.contiguous()  # numbers are summed as they lie in memory
            dist.all_reduce(gradient)
            torch.testing.assert_close(gradient / 2, joined, rtol=1e-9, atol=1e-12, msg=lambda m: where + m)
            assert joined.abs().sum() > 0, where
    print('ok', case, flush=True)
dist.barrier()
'''

ROWS = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from mmkd_plugin.losses.gather import SampleRelationLoss, gather_rows
dist.init_process_group('gloo')
rank = dist.get_rank()
everything = torch.arange(30.0).reshape(5, 3, 2)

for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    for first in (2, 0, 5, 3):
        own = [slice(0, first), slice(first, 5)][rank]
        value = everything[own].to(dtype).requires_grad_()
        labels = torch.arange(5)[own]
        with torch.autocast('cpu', dtype=torch.bfloat16):
            joined, others, numbers = gather_rows(value, everything[own], labels)
        assert joined.dtype == dtype and not others.requires_grad
        assert torch.equal(joined, everything.to(dtype)) and torch.equal(others, everything)
        assert torch.equal(numbers, torch.arange(5))
        (joined * everything).sum().backward()
        # of its own rows, and twice, since the mean over two processes is taken
        assert value.grad.dtype == dtype and torch.equal(value.grad, 2 * everything[own].to(dtype))

joined, = gather_rows(torch.zeros(0, 3, requires_grad=True))
assert joined.shape == (0, 3) and joined.requires_grad

strided = everything.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
assert torch.equal(gather_rows(strided)[0], torch.cat([everything, everything]))

try:
    gather_rows(torch.zeros(3, 2), torch.zeros(1, 2))
except ValueError as error:
    assert '(3, 2), (1, 2) given, expected values of the same samples' in str(error)
else:
    raise AssertionError('a single row would have been filled up with zeros')

if rank == 0:  # the other does not come: nobody may wait for it
    with torch.no_grad():
        assert SampleRelationLoss(gather=True).joined(everything)[0] is everything
with torch.no_grad():
    assert torch.equal(gather_rows(everything)[0], torch.cat([everything, everything]))

from mmkd_plugin.losses import DenseKDLoss
from mmkd_plugin.losses.gather import mean_of_processes

assert mean_of_processes(torch.tensor(3.0 + rank)) == 3.5
with torch.no_grad():
    assert mean_of_processes(torch.tensor(3.0 + rank)) == 3 + rank
student, teacher = torch.randn(2, 6, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
labels = torch.arange(24) % 5
own = slice(2 * rank, 2 + 4 * rank)  # two images and four
joined = DenseKDLoss()([student], [teacher], (labels,)).item()  # with the positives of both counted alike
part = DenseKDLoss()([student[own]], [teacher[own]], (labels[4 * own.start : 4 * own.stop],))
dist.all_reduce(part)
assert abs(part.item() / 2 - joined) < 1e-12  # as DDP takes the mean
print('rows are right', flush=True)
dist.barrier()
"""


def run(tmp_path: Path, script: str) -> list[str]:
    path = tmp_path / 'script.py'
    path.write_text(script)
    return [process.stdout for process in together(path, ROOT)]


def test_two_processes_are_one_with_the_joined_batch(tmp_path):
    """Values and averaged gradients of every loss that can gather, also with unequal parts and with no rows at all."""
    for output in run(tmp_path, EVERY_LOSS):
        assert [line for line in output.splitlines() if line.startswith('ok')] == [f'ok {case}' for case in CASES]


def test_rows_of_two_processes(tmp_path):
    assert all('rows are right' in output for output in run(tmp_path, ROWS))


def test_what_relates_samples_can_gather():
    can = {name for name in LOSSES if 'gather' in inspect.signature(LOSSES[name]).parameters}
    assert can == {name for name, loss in LOSSES.items() if issubclass(loss, SampleRelationLoss)}
    assert {case.split(':')[0] for case in CASES} == can >= {'RKDLoss'}
    assert not any(LOSSES[name]().gather for name in can)


def test_a_single_process_gets_its_own_tensors():
    values = torch.ones(3, 2, requires_grad=True), torch.ones(3)
    for got, given in zip(gather_rows(*values), values, strict=True):
        assert got is given
    assert gather_rows() == ()


def test_without_several_processes_gather_changes_nothing():
    student, teacher = torch.randn(4, 3), torch.randn(4, 5)
    assert RKDLoss(gather=True)(student, teacher) == RKDLoss()(student, teacher)


@pytest.mark.parametrize('gather', ['yes', 1, None])
def test_gather_is_a_boolean(gather):
    with pytest.raises(ValueError, match='gather='):
        RKDLoss(gather=gather)
