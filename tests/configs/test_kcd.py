"""KCD's rounds fit into the runs, and its data are of a kind that can be condensed."""

from pathlib import PurePath
from typing import Any

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, RepeatDataset
from mmengine.registry import DATASETS, HOOKS, DefaultScope

from mmkd_plugin.datasets import DigitScenes
from mmkd_plugin.kcd import KCDHook
from mmkd_plugin.kcd.valuation import keep_counts
from tests.configs.reading import RECIPES, load

pytestmark = pytest.mark.openmmlab

KCD = [recipe for recipe in RECIPES if recipe.base]
CIFAR_IMAGES = 50_000

all_recipes = pytest.mark.parametrize('recipe', KCD, ids=lambda recipe: PurePath(recipe.path).stem)


def build_hook(cfg: Any) -> KCDHook:
    (hook,) = (hook for hook in cfg.custom_hooks if hook['type'] == 'KCDHook')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):  # as the Runner builds it
        return HOOKS.build(hook)


def kind(scope: str, dataset: Any) -> Any:
    """The class, or what makes an instance."""
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(dataset['type'])


@all_recipes
def test_the_rounds_fit_into_the_run(recipe):
    """And the smallest part is trained on."""
    cfg = load(recipe.path)
    hook, epochs = build_hook(cfg), cfg.train_cfg.max_epochs
    assert type(hook) is KCDHook
    rounds = hook._plan(epochs)
    assert rounds == recipe.rounds
    assert len(rounds) > 1
    assert rounds[-1] < epochs


@all_recipes
def test_loop_and_data_are_of_a_kind_that_can_be_condensed(recipe):
    cfg = load(recipe.path)
    assert cfg.train_cfg.get('type') == 'EpochBasedTrainLoop' or cfg.train_cfg.by_epoch is True
    loader = cfg.train_dataloader
    assert loader.sampler['type'] == DefaultSampler.__name__
    found, dataset = [], loader.dataset
    while dataset:
        found.append(kind(cfg.default_scope, dataset))
        dataset = dataset.get('dataset') or next(iter(dataset.get('datasets', [])), None)
    wrappers = [RepeatDataset, ConcatDataset] if recipe.setting.startswith('voc') else []
    for known, given in zip([*wrappers, BaseDataset], found, strict=True):
        assert given is DigitScenes or issubclass(given, known)


@pytest.mark.parametrize('recipe', [r for r in KCD if r.setting == 'cifar100'], ids=lambda recipe: recipe.path)
def test_images_kept_on_cifar100(recipe):
    cfg = load(recipe.path)
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
