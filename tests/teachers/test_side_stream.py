import copy
from typing import Any

import pytest
import torch

from mmkd_plugin import distill
from mmkd_plugin.facts import Batch
from mmkd_plugin.networks import Tap
from mmkd_plugin.teachers import build_source
from tests.conftest import KD, batch

LOSSES: dict[str, Any] = {**KD, 'loss_at': {'type': 'ATLoss', 'on': ['backbone.layer2', 'backbone.layer4']}}


def test_on_a_cpu_it_changes_nothing(student, teacher):
    data = batch()
    values = []
    for stream in (False, True):
        model = distill(copy.deepcopy(student), LOSSES, teacher={'model': copy.deepcopy(teacher), 'stream': stream})
        values.append(model(**data, mode='loss'))
        assert model.distill.sources['teacher']._begun is None
    torch.testing.assert_close(*values, rtol=0, atol=0)


def test_sources_are_asked_before_the_students_pass(student, teacher):
    model = distill(student, LOSSES, teacher=teacher)
    order = []
    source = model.distill.sources['teacher']
    source.begin = lambda given, taps: order.append(set(map(str, taps)) if not given.values else 'late')
    model.backbone.register_forward_pre_hook(lambda *_: order.append('student'))
    model(**batch(), mode='loss')
    assert order == [{'head.fc', 'backbone.layer2', 'backbone.layer4'}, 'student']


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('amp', [False, True])
def test_values_are_those_of_one_after_the_other(student, teacher, amp):
    runs = []
    for stream in (False, True):
        torch.manual_seed(0)
        model = distill(
            copy.deepcopy(student).cuda(), LOSSES, teacher={'model': copy.deepcopy(teacher), 'stream': stream}
        )
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        values = []
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            for n in (64, 32, 64, 64):
                data = batch(n)
                data['inputs'] = data['inputs'].cuda()
                with torch.autocast('cuda', torch.float16, enabled=amp):
                    losses = model(**data, mode='loss')
                optimizer.zero_grad()
                model.parse_losses(losses)[0].backward()
                optimizer.step()
                values.append({name: value.detach() for name, value in losses.items()})
        runs.append(values)
    torch.testing.assert_close(*runs, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_images_that_are_changed_meanwhile_are_refused(student, teacher):
    source: Any = build_source({'model': teacher, 'stream': True}, 'teacher', student)
    taps = {Tap('head.fc'): None}
    source.probe(Batch(torch.zeros(2, 1, 28, 28)), taps)
    source.load()
    given = Batch(batch()['inputs'].cuda())
    source.get_ready(given.images)
    source.begin(given, taps)
    assert source.read(given, taps)[Tap('head.fc')].isfinite().all()
    source.begin(given, taps)
    given.images.add_(1)
    with pytest.raises(RuntimeError, match=r'changed the images in place .* say stream=False'):
        source.read(given, taps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('kind', ['bf16', 'fp16', 'fp32'])
def test_precision_under_amp_on_a_gpu(student, teacher, kind):
    precision = {'type': kind, 'tolerance': 0.5} if kind != 'fp32' else kind
    losses = []
    for given in (None, precision):
        model = distill(
            copy.deepcopy(student).cuda(), KD, teacher={'model': copy.deepcopy(teacher), 'precision': given}
        )
        data = batch(32)
        data['inputs'] = data['inputs'].cuda()
        with torch.autocast('cuda', torch.float16, enabled=given is not None):
            losses.append(model(**data, mode='loss')['loss_kd'])
    torch.testing.assert_close(*losses, rtol=0.1, atol=1e-3)
