"""Every config holds what `configs/recipes.toml` says, which is written from the sources, not read off the configs."""

import functools
import inspect
import re
import socket
from pathlib import PurePath
from typing import Any

import pytest
from mmengine.registry import MODELS

from tests.configs.reading import (
    CONFIGS,
    DISTILLED,
    RECIPES,
    TABLE,
    content,
    lines,
    load,
    plain_path,
    plain_student,
    read_on,
    without_scope,
    zoo,
)

pytestmark = pytest.mark.openmmlab

PLAIN = list(TABLE.plain())
PAIRS = [(pair, setting) for setting, pairs in TABLE.pairs.items() for pair in pairs]
TEACHERS = sorted({(recipe.teacher, recipe.setting) for recipe in RECIPES})
VOC = [row for row in PLAIN if row[1].startswith('voc')]

recipes = pytest.mark.parametrize('recipe', RECIPES, ids=lambda recipe: PurePath(recipe.path).stem)
distilled = pytest.mark.parametrize('recipe', DISTILLED, ids=lambda recipe: PurePath(recipe.path).stem)
plain = pytest.mark.parametrize(('network', 'setting', 'path'), PLAIN, ids=[PurePath(path).stem for *_, path in PLAIN])


@pytest.fixture(autouse=True)
def _no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants a file from the internet fails."""

    def refuse(*args: Any) -> None:
        raise AssertionError(f'a connection to {args[1:]}')

    monkeypatch.setattr(socket.socket, 'connect', refuse)


def effective(loss: dict[str, Any]) -> dict[str, Any]:
    """A loss with what it does by default; reading places by side."""
    kind = MODELS.get(loss['type'])
    parameters = inspect.signature(kind.__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    schedule = {'begin': 0, 'end': None, 'warmup': 1, 'by_epoch': True, **loss.get('schedule', {})}
    on = {side: list(paths) for side, paths in read_on(loss['on'], kind.sides).items()}
    return {**defaults, **loss, 'schedule': schedule, 'on': on}


def test_the_table_names_every_config():
    """A config without a row, or a row without a config, is an oversight."""
    found = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob('*.py')}
    named = {*(recipe.path for recipe in RECIPES), *(path for *_, path in PLAIN), *TABLE.schemes}
    assert named == {path for path in found if not path.startswith('_base_/')}
    bases = {path for path in found if path.startswith('_base_/pairs/')}
    assert bases == {f'_base_/pairs/{pair}_{setting}.py' for pair, setting in PAIRS}


@distilled
def test_the_losses(recipe):
    model = content(recipe.path)['model']
    assert {'loss_weight': 1, **model.get('task_loss', {})} == recipe.task_loss
    expected = {f'loss_{name}': effective(loss) for name, loss in recipe.losses.items()}
    assert {name: effective(loss) for name, loss in model['losses'].items()} == expected
    if 'iterations' in TABLE.settings[recipe.setting]:  # to mmengine such a run is one epoch
        assert all(loss.get('schedule', {'by_epoch': False})['by_epoch'] is False for loss in model['losses'].values())


@distilled
def test_the_student_and_its_teacher(recipe):
    """The student is the plain config's, but for a first stage; the teacher's config and file are named rightly."""
    cfg, plain = content(recipe.path), content(plain_path(recipe.student, recipe.setting))
    model = cfg['model']
    for key in ('losses', 'task_loss'):
        model.pop(key, None)
    assert {key: model.pop(key) for key in ('teacher', 'teachers') if key in model} == teachers_of(recipe)
    assert model.pop('type') == 'Distilled'
    model['type'] = model.pop('student')
    plain['optim_wrapper'] |= recipe.optim_wrapper
    hooks = [*plain.pop('custom_hooks'), {'type': 'TeacherEvalHook'}]
    if recipe.initial_epochs:
        hooks.append({'type': 'PhaseHook', 'optimizer': True})
        plain['train_cfg']['max_epochs'] += recipe.initial_epochs
        staged = [*recipe.losses.values(), recipe.task_loss]
        assert {turn for loss in staged for turn in loss['schedule'].values()} == {recipe.initial_epochs}
    if recipe.lr_mult:
        keys = {f'distill.losses.loss_{name}': {'lr_mult': factor} for name, factor in recipe.lr_mult.items()}
        plain['optim_wrapper']['paramwise_cfg'] = {'custom_keys': keys}
    assert cfg.pop('custom_hooks') == hooks
    assert cfg == plain


def teachers_of(recipe):
    runs = runs_of(recipe)
    if isinstance(runs, dict):
        return {'teachers': {name: left_by(path) for name, path in runs.items()}}
    if runs is None and (zoo_config := TABLE.zoo(recipe.teacher, recipe.setting)):
        return {'teacher': {'config': zoo_config}}
    if anchors := TABLE.pairs[recipe.setting][recipe.pair].get('anchors'):
        left = {**left_by(runs), 'checkpoint': f'work_dirs/{PurePath(runs).stem}/epoch_{{}}.pth'}
        return {'teacher': {'type': 'Route', **left, 'anchors': anchors}}
    return {'teacher': left_by(runs or plain_path(recipe.teacher, recipe.setting))}


def runs_of(recipe):
    return TABLE.pairs[recipe.setting][recipe.pair].get('runs')


def left_by(path):
    return {
        'config': f'mmkd_plugin::{path}',
        # where the Runner leaves it
        'checkpoint': f'work_dirs/{PurePath(path).stem}/epoch_{load(path).train_cfg.max_epochs}.pth',
    }


@pytest.mark.parametrize('recipe', [r for r in DISTILLED if runs_of(r)], ids=lambda recipe: PurePath(recipe.path).stem)
def test_a_teacher_that_another_run_trains_is_of_the_table_and_of_the_named_network(recipe):
    runs = runs_of(recipe)
    of_table = {other.path for other in RECIPES} | {path for *_, path in PLAIN} | {*TABLE.schemes}
    network = content(plain_path(recipe.teacher, recipe.setting))['model']
    for path in [runs] if isinstance(runs, str) else runs.values():
        assert path in of_table
        assert plain_student(load(path).model).to_dict() == network


def test_a_route_names_what_its_teacher_keeps():
    """The Runner writes a checkpoint after every interval, and the last one."""
    found = [TABLE.pairs[s][pair] for pair, s in PAIRS if 'anchors' in TABLE.pairs[s][pair]]
    assert found
    for pair in found:
        cfg = load(pair['runs'])
        checkpoint, epochs = cfg.default_hooks.checkpoint, cfg.train_cfg.max_epochs
        assert checkpoint.max_keep_ckpts == -1
        assert checkpoint.backend_args == {'backend': 'atomic'}
        assert pair['anchors'] == [*range(checkpoint.interval, epochs, checkpoint.interval), epochs]


@pytest.mark.parametrize(('network', 'setting'), TEACHERS)
def test_a_teacher_is_the_named_one(network, setting):
    """A config of ours, or published weights of that network for as many classes."""
    name = TABLE.zoo(network, setting)
    if not name or name.startswith('mmkd_plugin::'):
        assert (CONFIGS / plain_path(network, setting)).is_file()
        return
    published = zoo(name, pretrained=True)
    if 'teacher_ap' in TABLE.settings[setting]:
        assert f'mAP-{TABLE.settings[setting]["teacher_ap"][network] / 100:.3f}' in published.model_path
    elif setting == 'coco':
        assert all(word in re.split('[-_/.]', published.model_path) for word in re.split('[-_]', network)[:2])
    else:
        assert f'{network}_' in published.model_path
        assert published.model.head.num_classes == 1000


@pytest.mark.parametrize('recipe', [r for r in RECIPES if r.base], ids=lambda recipe: PurePath(recipe.path).stem)
def test_a_hook_on_top_of_a_distillation_config(recipe):
    cfg, base = content(recipe.path), content(recipe.base)
    assert cfg.pop('custom_hooks') == [*base.pop('custom_hooks'), {'type': 'KCDHook', **recipe.hook}]
    assert cfg == base


@recipes
def test_a_config_is_its_pair_and_at_most_8_lines(recipe):
    """The first line says which pair, or names a config whose first line does."""
    text = lines(recipe.path)
    assert len(text) <= 8
    depth = '../' * recipe.path.count('/')
    if recipe.base:
        assert (CONFIGS / recipe.path).parent.joinpath(text[0].split("'")[1]).samefile(CONFIGS / recipe.base)
    else:
        assert text[0] == f"_base_ = '{depth}_base_/pairs/{recipe.pair}_{recipe.setting}.py'"
    assert (CONFIGS / recipe.path).read_text().startswith(text[0])


@plain
def test_schedule(network, setting, path):
    wanted, cfg = TABLE.schedule(network, setting), without_scope(content(path))
    optimizer = cfg['optim_wrapper']['optimizer']
    assert optimizer['lr'] == wanted['lr']
    assert optimizer['weight_decay'] == wanted['weight_decay']
    assert cfg['train_dataloader']['batch_size'] * wanted['gpus'] == wanted['batch']
    train = {key: value for key, value in cfg['train_cfg'].items() if key not in ('type', 'by_epoch', 'val_interval')}
    schedulers = cfg['param_scheduler']
    if setting == 'coco':  # test_coco_is_mmdets has the rest
        assert train['max_epochs'] == wanted['epochs']
        return
    if 'milestones' not in wanted:  # ours
        assert train == {'max_epochs': wanted['epochs']}
        one_cycle = {'type': 'OneCycleLR', 'total_steps': wanted['epochs'], 'by_epoch': True}
        assert one_cycle.items() <= schedulers.items()
        assert schedulers['eta_max'] == wanted['lr']
        return
    assert optimizer == {'type': 'SGD', 'lr': wanted['lr'], 'momentum': 0.9, 'weight_decay': wanted['weight_decay']}
    # no clipping, no accumulation, no multipliers
    assert cfg['optim_wrapper'] in ({'optimizer': optimizer}, {'type': 'OptimWrapper', 'optimizer': optimizer})
    assert cfg['auto_scale_lr']['base_batch_size'] == wanted['batch']
    by_epoch = 'epochs' in wanted
    steps = {'type': 'MultiStepLR', 'by_epoch': by_epoch, 'milestones': wanted['milestones'], 'gamma': 0.1}
    length = wanted['epochs'] if by_epoch else wanted['iterations']
    whole = {**steps, 'begin': 0, 'end': length}
    if by_epoch:
        assert schedulers in (steps, [whole])
        assert train == {'max_epochs': length}
        assert cfg['train_cfg'].get('by_epoch', cfg['train_cfg'].get('type') == 'EpochBasedTrainLoop') is True
        assert cfg['train_cfg']['val_interval'] == 1
    else:
        end = wanted['warmup_iterations']
        warmup = {'type': 'LinearLR', 'start_factor': 0.001, 'by_epoch': False, 'begin': 0, 'end': end}
        assert schedulers == [warmup, whole]
        assert cfg['train_cfg'] == {'type': 'IterBasedTrainLoop', 'max_iters': length, 'val_interval': 10_000}
        assert cfg['train_dataloader']['sampler'] == {'type': 'InfiniteSampler', 'shuffle': True}
        assert cfg['log_processor']['by_epoch'] is False


@plain
def test_runtime(network, setting, path):
    cfg = load(path)
    assert cfg.default_scope == TABLE.settings[setting]['scope']
    assert cfg.custom_imports == {'imports': ['mmkd_plugin'], 'allow_failed_imports': False}
    assert cfg.randomness.seed == 0
    checkpoint = cfg.default_hooks.checkpoint
    assert checkpoint.backend_args == {'backend': 'atomic'}
    assert checkpoint.max_keep_ckpts == 2
    length = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs
    assert length % checkpoint.interval == 0
    assert checkpoint.get('by_epoch', True) is ('max_epochs' in cfg.train_cfg)
    hooks = cfg.custom_hooks[2:] if network.startswith('rtmdet') else cfg.custom_hooks  # its own come first
    assert hooks == [{'type': 'EpochSeedHook'}]  # test_the_student_and_its_teacher has the teacher's


@pytest.mark.parametrize(('network', 'path'), [(n, p) for n, setting, p in PLAIN if setting == 'coco'])
def test_coco_is_mmdets(network, path):
    """But that runs resume exactly."""
    cfg, mmdet = without_scope(content(path)), without_scope(zoo(TABLE.zoo(network, 'coco')).to_dict())
    assert cfg.pop('custom_imports') == {'imports': ['mmkd_plugin'], 'allow_failed_imports': False}
    assert cfg.pop('randomness') == {'seed': 0}
    assert cfg.pop('custom_hooks') == [*mmdet.pop('custom_hooks', []), {'type': 'EpochSeedHook'}]
    assert cfg['train_dataloader'].pop('persistent_workers') is False
    assert mmdet['train_dataloader'].pop('persistent_workers') is True
    for hooks in (cfg['default_hooks'], mmdet['default_hooks']):
        for key in ('max_keep_ckpts', 'backend_args'):
            hooks['checkpoint'].pop(key, None)
    assert cfg == mmdet


@functools.cache
def mmdets_voc():
    return without_scope(zoo('mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py').to_dict())


@pytest.mark.parametrize(('network', 'setting', 'path'), VOC, ids=[PurePath(path).stem for *_, path in VOC])
def test_voc_is_mmdets(network, setting, path):
    """Schedule, data and number of classes are those of mmdet's own VOC config."""
    cfg, mmdet = without_scope(content(path)), mmdets_voc()
    loader, theirs = cfg.pop('train_dataloader'), without_scope(mmdet['train_dataloader'])
    assert theirs.pop('persistent_workers') is True
    assert loader.pop('persistent_workers') is False  # EpochSeedHook seeds new workers
    if setting == 'voc2007':
        (year,) = loader['dataset']['dataset']['datasets']
        assert year['ann_file'] == 'VOC2007/ImageSets/Main/trainval.txt'
        del theirs['dataset']['dataset']['datasets'][1]
    assert loader == theirs
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr'):
        assert cfg[key] == mmdet[key], key
    for key in ('val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        assert cfg[key] == mmdet[key], key
    model = cfg['model']
    assert (model if setting == 'voc0712_dense' else model['roi_head'])['bbox_head']['num_classes'] == 20
