"""KCD: a distillation config and one hook more, with the published numbers where there are any.

The expected numbers stand here once more, written from the sources (the paper, the README and the
code of dzy3/KCD), not read from the configs. What a base config holds is tested with its method.
"""

from pathlib import PurePath
from typing import Any, NamedTuple

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, RepeatDataset
from mmengine.registry import DATASETS, HOOKS, DefaultScope

from mmkd_plugin.datasets import DigitScenes
from mmkd_plugin.kcd import KCDHook
from mmkd_plugin.kcd.valuation import keep_counts
from tests.configs.reading import CONFIGS, lines, load

pytestmark = pytest.mark.openmmlab

CIFAR_PAIRS = ('resnet56_resnet20', 'resnet32x4_resnet8x4', 'wrn-40-2_wrn-16-2', 'vgg13_vgg8')
IMAGENET_PAIR = 'resnet34_resnet18'
PUBLISHED = {'final_ratio': 0.7, 'alpha': 0.03, 'epsilon_max': 0.3}
CIFAR_IMAGES = 50_000


class Recipe(NamedTuple):
    """What is distilled, how often data are condensed, and after which epochs that is."""

    base: str
    interval: int
    rounds: list[int]
    begin: int = 0


def of_pair(method: str, pair: str, interval: int, rounds: list[int]) -> tuple[str, Recipe]:
    name = f'{method}_{pair}.py'
    return f'classification/kcd/kc_{name}', Recipe(f'classification/{method}/{name}', interval, rounds)


# the paper's: stages of 40 of 240 epochs
CIFAR = dict(
    of_pair(method, f'{pair}_cifar100', 40, [40, 80, 120, 160, 200]) for method in ('kd', 'dkd') for pair in CIFAR_PAIRS
)
# ours
DETECTION = {
    'digit_scenes/kc_dkd_faster_rcnn.py': Recipe('dkd_faster_rcnn.py', 4, [4, 8, 12, 16]),
    **{
        f'detection/kcd/kc_dkd_faster-rcnn_r101_r50_fpn_{data}.py': Recipe(
            f'detection/dkd/dkd_faster-rcnn_r101_r50_fpn_{data}.py', 1, [2, 3], begin=1
        )
        for data in ('voc0712', 'voc2007')
    },
}
OURS = {
    **dict(of_pair(method, f'{IMAGENET_PAIR}_8xb64_in1k', 17, [17, 34, 51, 68, 85]) for method in ('kd', 'dkd')),
    'kcd_resnet.py': Recipe('kd_resnet.py', 7, [7, 14, 21, 28, 35]),
    'digits/kc_dkd_resnet.py': Recipe('dkd_resnet.py', 7, [7, 14, 21, 28, 35]),
    **DETECTION,
}
RECIPES = {**CIFAR, **OURS}

all_recipes = pytest.mark.parametrize('name', RECIPES, ids=lambda name: PurePath(name).stem)


def build_hook(cfg: Any) -> KCDHook:
    (hook,) = (hook for hook in cfg.custom_hooks if hook['type'] == 'KCDHook')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):  # as the Runner builds it
        return HOOKS.build(hook)


def kind(scope: str, dataset: Any) -> Any:
    """The class, or what makes an instance."""
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(dataset['type'])


def test_the_tables_name_every_file():
    found = [
        path for path in CONFIGS.rglob('*.py') if path.parent.name == 'kcd' or path.name.startswith(('kc_', 'kcd_'))
    ]
    assert sorted(str(path.relative_to(CONFIGS)) for path in found) == sorted(RECIPES)


@all_recipes
def test_it_is_the_distillation_config_and_one_hook(name):
    recipe = RECIPES[name]
    cfg, base = load(name).to_dict(), load(recipe.base).to_dict()
    *hooks, kcd = cfg.pop('custom_hooks')
    assert hooks == base.pop('custom_hooks')
    assert kcd.pop('begin', 0) == recipe.begin
    assert kcd == {'type': 'KCDHook', 'interval': recipe.interval, **PUBLISHED}
    assert cfg == base
    assert lines(name) <= 15


@all_recipes
def test_the_rounds_fit_into_the_run(name):
    """And the smallest part is trained on."""
    cfg = load(name)
    hook, epochs = build_hook(cfg), cfg.train_cfg.max_epochs
    assert type(hook) is KCDHook
    rounds = hook._plan(epochs)
    assert rounds == RECIPES[name].rounds
    assert len(rounds) > 1
    assert rounds[-1] < epochs


@all_recipes
def test_loop_and_data_are_of_a_kind_that_can_be_condensed(name):
    cfg = load(name)
    assert cfg.train_cfg.get('type') == 'EpochBasedTrainLoop' or cfg.train_cfg.by_epoch is True
    loader = cfg.train_dataloader
    assert loader.sampler['type'] == DefaultSampler.__name__
    found, dataset = [], loader.dataset
    while dataset:
        found.append(kind(cfg.default_scope, dataset))
        dataset = dataset.get('dataset') or next(iter(dataset.get('datasets', [])), None)
    wrappers = [RepeatDataset, ConcatDataset] if 'voc' in name else []
    for known, given in zip([*wrappers, BaseDataset], found, strict=True):
        assert given is DigitScenes or issubclass(given, known)


@pytest.mark.parametrize('name', [name for name in CIFAR if '/kc_kd_' in name])
def test_the_published_setting_of_kc_kd(name):
    """The README's: 0.1 CE + 0.9 KD at T = 4."""
    model = load(name).model
    assert model.task_loss == {'loss_weight': 0.1}
    (loss,) = model.losses.values()
    assert (loss.type, loss.temperature, loss.loss_weight) == ('KDLoss', 4, 0.9)


@pytest.mark.parametrize('name', CIFAR)
def test_images_kept_on_cifar100(name):
    cfg = load(name)
    hook, epochs = build_hook(cfg), cfg.train_cfg.max_epochs
    assert kept(hook, epochs) == [47_000, 44_000, 41_000, 38_000, 35_000]
    assert passes(hook, epochs) == 0.85
    # the official code condenses once more when nothing is trained any more
    cfg.merge_from_dict({'custom_hooks.2.official_schedule': True})
    official = build_hook(cfg)
    assert official._plan(epochs) == [40, 80, 120, 160, 200, 240]
    assert kept(official, epochs) == [47_500, 45_000, 42_500, 40_000, 37_500, 35_000]
    assert passes(official, epochs) == 0.875


def kept(hook: KCDHook, epochs: int) -> list[int]:
    return keep_counts(CIFAR_IMAGES, len(hook._plan(epochs)), hook.final_ratio, hook.keep_schedule)


def passes(hook: KCDHook, epochs: int) -> float:
    """Samples trained on, as a part of those without KCD."""
    ends = [*hook._plan(epochs), epochs]
    stages = zip([0, *ends], ends, [CIFAR_IMAGES, *kept(hook, epochs)], strict=False)
    return sum((end - start) * images for start, end, images in stages) / (epochs * CIFAR_IMAGES)
