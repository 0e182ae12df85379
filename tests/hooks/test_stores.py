"""What a run must be so that a store can be exact, and what is refused."""

from typing import Any

import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.registry import TRANSFORMS

from tests.end_to_end.helpers import digits_cfg, runner_of

pytestmark = pytest.mark.openmmlab
PACK = [{'type': 'PackInputs'}]
CROP = {'type': 'RandomCrop', 'crop_size': 28, 'padding': 2}


@TRANSFORMS.register_module()
class Counting:
    """Has a state of its own."""

    def __init__(self):
        self.count = 0

    def __call__(self, results):
        self.count += 1
        return {**results, 'img': results['img'] + np.uint8(self.count)}


@TRANSFORMS.register_module()
class OwnGenerator:
    """Draws where no seed reaches."""

    def __init__(self):
        self.random = np.random.default_rng(0)

    def __call__(self, results):
        return {**results, 'img': np.roll(results['img'], self.random.integers(1, 28), axis=1)}


@TRANSFORMS.register_module()
class Cached:
    results_cache: list[Any] = []

    def __call__(self, results):
        return results


@TRANSFORMS.register_module()
class RandomWidth:
    def __call__(self, results):
        return {**results, 'img': results['img'][:, : np.random.randint(20, 28)]}


class Switch(Hook):
    switch_pipeline = PACK


class Quiet(Hook):
    """Exchanges the pipeline without saying so before."""

    def before_train_epoch(self, runner):
        owner = runner.train_dataloader.dataset.dataset
        owner.pipeline = type(owner.pipeline)(PACK)


def config(folder, hooks=(), pipeline=(CROP,), epochs=2, store=None, **more):
    cfg = digits_cfg(folder, epochs, 'kd_resnet.py', **more)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = [{'type': 'EpochSeedHook'}, {'type': 'DistillHook'}, *hooks]
    cfg.train_dataloader.dataset.pipeline = [*pipeline, *PACK]
    cfg.model.teacher.store = {'path': str(folder / 'store'), 'views': 2, **(store or {})}
    return cfg


@pytest.mark.parametrize('transform', ['Counting', 'OwnGenerator'])
def test_transforms_with_a_state_of_their_own(tmp_path, transform):
    with pytest.raises(ValueError, match='gave another image when the same view of it was drawn again'):
        runner_of(config(tmp_path, pipeline=[{'type': transform}])).train()
    assert not (tmp_path / 'store').exists()


def test_transforms_that_mix_in_what_they_met(tmp_path):
    with pytest.raises(RuntimeError, match='cannot repeat Cached'):
        runner_of(config(tmp_path, pipeline=[{'type': 'Cached'}])).train()


def test_images_of_several_sizes(tmp_path):
    with pytest.raises(ValueError, match=r'images of several sizes, .* a store needs one size'):
        runner_of(config(tmp_path, pipeline=[{'type': 'RandomWidth'}], **{'train_dataloader.batch_size': 1})).train()


def test_mixup_in_the_data_preprocessor(tmp_path):
    cfg = config(tmp_path)
    cfg.model.train_cfg = {'augments': [{'type': 'Mixup', 'alpha': 0.2}]}
    with pytest.raises(ValueError, match=r'changes images by the batch that they are in .*Mixup, CutMix'):
        runner_of(cfg).train()


def test_hooks_that_switch_pipelines(tmp_path):
    runner = runner_of(config(tmp_path))
    runner.register_hook(Switch())
    with pytest.raises(ValueError, match='Switch switches the pipeline'):
        runner.train()


def test_pipelines_that_were_switched(tmp_path):
    runner = runner_of(config(tmp_path))
    runner.register_hook(Quiet(), 'HIGHEST')
    with pytest.raises(ValueError, match='is another one than when the store was opened'):
        runner.train()


def test_a_run_without_epochs(tmp_path):
    cfg = config(tmp_path)
    cfg.train_cfg = {'by_epoch': False, 'max_iters': 4, 'val_interval': 100}
    cfg.param_scheduler = None
    with pytest.raises(RuntimeError, match='a store needs epochs'):
        runner_of(cfg).train()


def test_nobody_who_draws_views(tmp_path):
    cfg = config(tmp_path)
    cfg.custom_hooks = cfg.custom_hooks[1:]
    with pytest.raises(RuntimeError, match=r"add dict\(type='EpochSeedHook', by_sample=True, views=2\)"):
        runner_of(cfg).train()


def test_other_views_in_the_hook(tmp_path):
    cfg = config(tmp_path)
    cfg.custom_hooks[0] = {'type': 'EpochSeedHook', 'by_sample': True, 'views': 3}
    with pytest.raises(ValueError, match=r'EpochSeedHook has \(views, view_seed\) \(3, 0\), and the store \(2, 0\)'):
        runner_of(cfg).train()


def test_stores_of_two_teachers_that_differ(tmp_path):
    cfg = config(tmp_path)
    one = cfg.model.pop('teacher').to_dict()
    two = {**one, 'store': {**one['store'], 'views': 3}}
    kd = {'type': 'KDLoss', 'on': 'head.fc'}
    cfg.model.teachers = {'a': one, 'b': two}
    cfg.model.losses = {'loss_a': {**kd, 'teacher': 'a'}, 'loss_b': {**kd, 'teacher': 'b'}}
    with pytest.raises(ValueError, match=r'\[\(2, 0\), \(3, 0\)\], expected the same for all'):
        runner_of(cfg).train()


KCD = {'type': 'KCDHook', 'interval': 1, 'table': False}


def test_kcd_that_mixes(tmp_path):
    with pytest.raises(ValueError, match='KCDHook mixes images into each other'):
        runner_of(config(tmp_path, [KCD], epochs=3)).train()


def test_kcd_that_reads_all_scores_of_few(tmp_path):
    hook = {**KCD, 'mixing': None, 'value': 'kl'}
    with pytest.raises(ValueError, match=r'KCDHook reads the class scores of teacher, whose store has keep=3'):
        runner_of(config(tmp_path, [hook], epochs=3, store={'keep': 3})).train()
