"""Fixtures: a tiny classifier that trains in milliseconds, and its building blocks."""

import copy
import functools
import gc
import itertools
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmengine.config import Config, utils
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mmkd_plugin  # noqa: F401 (registers)
from mmkd_plugin.files.configs import config_path
from tests.processes import no_layout

# small work is fastest on one thread, and runs that are compared bit for bit need a fixed number
torch.set_num_threads(1)
os.environ.setdefault('OMP_NUM_THREADS', '1')


_load_once = functools.cache(utils.load)


@pytest.fixture(scope='session', autouse=True)
def _runs_wait_for_no_trifles() -> Iterator[None]:
    """What costs mmengine more than half of a run of seconds, and changes nothing that a test looks at."""
    gc.collect()
    gc.freeze()  # data sets collect garbage, 0.2 s each among the objects of all that was imported
    with pytest.MonkeyPatch.context() as patch:
        # some 70 yaml files, 0.1 s or more, for each `_base_` in another package
        patch.setattr(utils, 'load', _load_once)
        no_layout(lambda module, name, value: patch.setattr(module, name, value, raising=False))
        yield


_begun = itertools.count(1)


def pytest_runtest_setup() -> None:
    """What thousands of tests leave behind is set aside now and then, as is what was imported; see above."""
    if next(_begun) % 200 == 0:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _mmpretrain_scope() -> Iterator[None]:
    """Configs in tests resolve as in mmpretrain's own; message hubs do not leak between tests."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield
    MessageHub.get_current_instance().runtime_info.clear()


@pytest.fixture(autouse=True)
def _signals_are_left_alone() -> Iterator[None]:
    """Each later fork inherits a handler, and a worker that SIGTERM does not end is waited for without end."""
    watched = signal.SIGTERM, signal.SIGHUP, signal.SIGINT
    before = [signal.getsignal(number) for number in watched]
    yield
    after = [signal.getsignal(number) for number in watched]
    for number, handler in zip(watched, before, strict=True):
        signal.signal(number, handler)
    assert after == before, 'this test leaves another handler of a signal behind'


def student_cfg(**changes: Any) -> dict[str, Any]:
    """The digits student's model dict, narrower still."""
    cfg = Config.fromfile(config_path('digits/resnet_student.py'))
    model = copy.deepcopy(cfg.model.to_dict())
    model['data_preprocessor'] = cfg.data_preprocessor.to_dict()
    model.update(changes)
    return model


def build(cfg: dict[str, Any], seed: int = 0) -> Any:
    """A model with initialised, seeded weights."""
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def batch(n: int = 4, classes: int = 10, size: int = 28, channels: int = 1) -> dict[str, Any]:
    """What the data preprocessor gives: images and labelled data samples."""
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(1)
    images = torch.randn(n, channels, size, size, generator=generator)
    samples = [
        DataSample(metainfo={'img_shape': (size, size), 'sample_index': i}).set_gt_label(torch.tensor([i % classes]))
        for i in range(n)
    ]
    return {'inputs': images, 'data_samples': samples}


def trained_like(model: nn.Module, seed: int = 3) -> nn.Module:
    """Give batch norms statistics and weights as training would, so that folding is no no-op."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape  # type: ignore[union-attr]
            module.running_mean = torch.randn(shape, generator=generator) * 0.3
            module.running_var = torch.rand(shape, generator=generator) + 0.5
            module.weight.data = torch.rand(shape, generator=generator) + 0.5
            module.bias.data = torch.randn(shape, generator=generator) * 0.3
    return model


@pytest.fixture
def student() -> Any:
    return build(student_cfg(), seed=0)


@pytest.fixture
def teacher() -> Any:
    return trained_like(build(student_cfg(), seed=7))


@pytest.fixture
def mmcv_ops() -> None:
    """Skips what mmcv's operations on a GPU are needed for: they are compiled for one, or not."""
    from mmcv.ops import RoIAlign, nms

    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]], device='cuda')
    try:
        nms(boxes, boxes[:, 2], 0.5)
        RoIAlign(2)(torch.ones(1, 1, 8, 8, device='cuda'), torch.cat([boxes[:, :1], boxes], 1))
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f'mmcv is not compiled for the GPU: {str(error).splitlines()[0]}')


KD: dict[str, Any] = {'loss_kd': {'type': 'KDLoss', 'on': 'head.fc', 'temperature': 4.0}}
DKD: dict[str, Any] = {'loss_dkd': {'type': 'DKDLoss', 'on': 'head.fc', 'temperature': 4.0}}
__all__ = ['DKD', 'KD', 'batch', 'build', 'student_cfg', 'trained_like']
