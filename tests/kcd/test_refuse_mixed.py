"""KCDHook refuses images that are mixtures already, now or by what another hook will switch on."""

import copy
import re
from typing import Any

import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.hooks import Hook
from torch import nn

from mmkd_plugin.datasets import Digits
from mmkd_plugin.kcd.refuse_mixed import refuse_mixtures
from tests.end_to_end.helpers import runner_of
from tests.kcd.test_hook import config, hook_of, trained

pytestmark = pytest.mark.openmmlab
MIXUP = {'type': 'Mixup', 'alpha': 0.8}
NOTHING = nn.Module()
PACK = {'type': 'PackInputs'}
MOSAIC = {'type': 'mmdet.CachedMosaic', 'img_scale': (28, 28)}
TRANSFORMS_THAT_MIX = ['CachedMosaic', 'CachedMixUp', 'Mosaic', 'MixUp', 'CopyPaste']
CROP = [{'type': 'RandomCrop', 'crop_size': 20}, PACK]


@pytest.fixture(autouse=True)
def _mmdet_is_there():
    import mmdet.datasets  # noqa: F401 (registers)


def mixing(kind: str, within: bool) -> list[dict[str, Any]]:
    transform: dict[str, Any] = {'type': f'mmdet.{kind}'}
    if within:
        transform = {'type': 'RandomApply', 'transforms': [{'type': 'RandomChoice', 'transforms': [[transform]]}]}
    return [{'type': 'RandomCrop', 'crop_size': 28}, transform, PACK]


@pytest.mark.parametrize('within', [False, True])
@pytest.mark.parametrize('kind', TRANSFORMS_THAT_MIX)
@pytest.mark.parametrize(
    'wrap',
    [
        lambda data: data,
        lambda data: RepeatDataset(data, 2),
        lambda data: ConcatDataset([Digits(per_class=1, pipeline=[PACK]), data]),
        lambda data: ConcatDataset([{'type': 'RepeatDataset', 'dataset': data, 'times': 2}]),
    ],
)
def test_transforms_of_every_data_set(wrap, kind, within):
    data = wrap(Digits(per_class=1, pipeline=copy.deepcopy(mixing(kind, within))))
    with pytest.raises(ValueError, match=f'KCDHook: at epoch 2, {kind} mixes images in the pipeline of Digits'):
        refuse_mixtures(NOTHING, data, 'at epoch 2, ')


def test_other_transforms_stay(tmp_path):
    applied = {'type': 'RandomApply', 'transforms': [{'type': 'RandomCrop', 'crop_size': 28}]}
    refuse_mixtures(NOTHING, RepeatDataset(Digits(per_class=1, pipeline=[applied, PACK]), 2))


def test_wrapped_transforms_are_refused_before_training(tmp_path):
    cfg = config(tmp_path)
    inner = cfg.train_dataloader.dataset
    inner.pipeline = [MOSAIC, PACK]
    cfg.train_dataloader.dataset = {'type': 'RepeatDataset', 'times': 2, 'dataset': inner}
    with pytest.raises(ValueError, match='KCDHook: CachedMosaic mixes images in the pipeline of Digits'):
        trained(cfg)


def test_batches_mixed_from_the_start(tmp_path):
    cfg = config(tmp_path)
    cfg.model.train_cfg = {'augments': MIXUP}
    with pytest.raises(ValueError, match="KCDHook: the student's data preprocessor mixes images"):
        trained(cfg)


def switched(tmp_path, hook):
    cfg = config(tmp_path)
    cfg.custom_hooks = [hook, *cfg.custom_hooks]
    return cfg


@pytest.mark.parametrize(
    ('hook', 'match'),
    [
        (
            {'schedule': [{'action_epoch': 3, 'batch_augments': {'augments': MIXUP}}]},
            'from epoch 3 on, SwitchRecipeHook switches to images that are mixed (batch_augments), so that',
        ),
        (
            {'schedule': [{'action_epoch': 6, 'train_pipeline': [MOSAIC, PACK]}]},
            'from epoch 6 on, SwitchRecipeHook switches to images that are mixed (CachedMosaic), so that',
        ),
        (
            {'switch_epoch': 2, 'switch_pipeline': [MOSAIC, PACK]},
            'from epoch 3 on, PipelineSwitchHook switches to images that are mixed (CachedMosaic), so that',
        ),
    ],
)
def test_planned_mixtures_are_refused_before_training(tmp_path, hook, match):
    kind = 'mmpretrain.SwitchRecipeHook' if 'schedule' in hook else 'mmdet.PipelineSwitchHook'
    import mmdet.engine.hooks  # noqa: F401 (registers)

    runner = runner_of(switched(tmp_path, {'type': kind, **hook}))
    with pytest.raises(ValueError, match=re.escape(match)):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize('repeated', [False, True])
def test_plans_that_do_not_mix_are_carried_out(tmp_path, repeated):
    plan = [
        {'action_epoch': 2, 'batch_augments': None},
        {'action_epoch': 3, 'train_pipeline': CROP},
        {'action_epoch': 7, 'batch_augments': {'augments': MIXUP}},  # after the end
    ]
    cfg = switched(tmp_path, {'type': 'SwitchRecipeHook', 'schedule': plan})
    if repeated:
        inner = cfg.train_dataloader.dataset
        cfg.train_dataloader.dataset = {'type': 'RepeatDataset', 'times': 1, 'dataset': inner}
    runner = runner_of(cfg)
    sizes: list[int] = []
    runner.model.data_preprocessor.register_forward_pre_hook(
        lambda _m, args: sizes.append(args[0]['inputs'][0].shape[-1])
    )
    runner.train()
    assert sizes[-24:] == [28] * 10 + [20] * 14
    assert hook_of(runner).round == 2


class Caching:
    """Has what mmdet's cached mixing has."""

    results_cache = ()

    def __call__(self, results):
        return results


class Switch(Hook):
    """Switches without saying so before."""

    def __init__(self, what):
        self.what = what

    def before_train_epoch(self, runner):
        if runner.epoch == 2:
            if self.what == 'batch':
                runner.model.data_preprocessor.batch_augments = lambda *_: None
            else:
                runner.train_dataloader.dataset.pipeline.transforms.insert(0, Caching())


@pytest.mark.parametrize(
    ('what', 'match'),
    [
        ('batch', "at epoch 3, the student's data preprocessor mixes images"),
        ('pipeline', 'at epoch 3, Caching mixes images in the pipeline of Digits'),
    ],
)
def test_what_is_switched_without_a_plan(tmp_path, what, match):
    runner = runner_of(config(tmp_path))
    runner.register_hook(Switch(what), priority='LOWEST')
    with pytest.raises(ValueError, match=match):
        runner.train()
    assert runner.iter == 10, 'trained on mixtures'
