"""The classification configs are the published recipes.

The expected numbers stand here once more, written from the sources (mdistiller's configs, the
papers' hyper-parameters, the CRD benchmark's parameter counts), not read from the configs.
"""

import pickle
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmengine.config import Config

import mmkd_plugin.models  # noqa: F401  the networks the configs name
from tests.configs import reading
from tests.configs.reading import CONFIGS, zoo

pytestmark = pytest.mark.openmmlab

CLASSIFICATION = CONFIGS / 'classification'


class Pair(NamedTuple):
    """A teacher and a student, as the published code distils them."""

    teacher: str
    student: str
    data: str
    beta: float
    dkd_warmup: int  # epochs; 1 is none


PAIRS = [
    Pair('resnet56', 'resnet20', 'cifar100', beta=2, dkd_warmup=20),
    Pair('resnet32x4', 'resnet8x4', 'cifar100', beta=8, dkd_warmup=20),
    Pair('wrn-40-2', 'wrn-16-2', 'cifar100', beta=6, dkd_warmup=20),
    Pair('vgg13', 'vgg8', 'cifar100', beta=6, dkd_warmup=20),
    Pair('resnet34', 'resnet18', '8xb64_in1k', beta=0.5, dkd_warmup=1),
    Pair('resnet50', 'mobilenet_v1', '8xb64_in1k', beta=2, dkd_warmup=1),
]
# KD: (temperature, weight of the task loss, weight of the KD loss)
KD = {'cifar100': (4, 0.1, 0.9), '8xb64_in1k': (1, 0.5, 0.5)}
DKD_TEMPERATURE = {'cifar100': 4, '8xb64_in1k': 1}

# The other methods compare feature maps; test_feature_recipes.py has their numbers.
CIFAR_PAIRS = [(p.teacher, p.student, p.data) for p in PAIRS if p.data == 'cifar100']
FEATURE_PAIRS = {
    'fitnet': CIFAR_PAIRS,
    'at': [*CIFAR_PAIRS, ('resnet34', 'resnet18', '8xb64_in1k')],
    'nst': [*CIFAR_PAIRS, ('resnet101', 'resnet50', '8xb64_in1k')],
    'reviewkd': [
        *(pair for pair in CIFAR_PAIRS if pair[0] != 'vgg13'),  # no weight was found for it
        ('resnet34', 'resnet18', '8xb32_in1k'),
        ('resnet50', 'mobilenet_v1', '8xb32_in1k'),
    ],
}
DISTILLATIONS = [
    *((method, p.teacher, p.student, p.data) for method in ('kd', 'dkd') for p in PAIRS),
    *((method, *pair) for method, pairs in FEATURE_PAIRS.items() for pair in pairs),
]

# (batch size over all GPUs, learning rate, weight decay, epochs, milestones)
SCHEDULES = {
    'cifar100': (64, 0.05, 5e-4, 240, [150, 180, 210]),
    '8xb64_in1k': (512, 0.2, 1e-4, 100, [30, 60, 90]),
    '8xb32_in1k': (256, 0.1, 1e-4, 100, [30, 60, 90]),
}
GPUS = {'cifar100': 1, '8xb64_in1k': 8, '8xb32_in1k': 8}
NST_IMAGENET_LR = 0.1  # at batch 512, in the authors' code

# Parameters of the whole classifier.
PLAIN = {
    'resnet20_cifar100': 278_324,
    'resnet56_cifar100': 861_620,
    'resnet8x4_cifar100': 1_233_540,
    'resnet32x4_cifar100': 7_433_860,
    'wrn-16-2_cifar100': 703_284,
    'wrn-40-2_cifar100': 2_255_156,
    'vgg8_cifar100': 3_965_028,
    'vgg13_cifar100': 9_462_180,
    'resnet18_8xb64_in1k': 11_689_512,
    'resnet18_8xb32_in1k': 11_689_512,
    'resnet50_8xb64_in1k': 25_557_032,
    'mobilenet_v1_8xb64_in1k': 4_231_976,
    'mobilenet_v1_8xb32_in1k': 4_231_976,
}
EXPECTED_FILES = {
    *(f'plain/{name}.py' for name in PLAIN),
    *(f'{method}/{method}_{teacher}_{student}_{data}.py' for method, teacher, student, data in DISTILLATIONS),
}
# KCD adds a hook to a config of this list; see test_kcd_recipes.py.
FILES = sorted(
    str(path.relative_to(CLASSIFICATION)) for path in CLASSIFICATION.rglob('*.py') if path.parent.name != 'kcd'
)
DISTILLED = [name for name in FILES if not name.startswith('plain/')]

pair_params = pytest.mark.parametrize('pair', PAIRS, ids=lambda p: f'{p.teacher}-{p.student}')


def load(name: str) -> Config:
    return reading.load(f'classification/{name}')


def data_of(name: str) -> str:
    return next(data for data in SCHEDULES if name.endswith(f'_{data}.py'))


def test_every_recipe_is_in_the_tables_above():
    assert set(FILES) == EXPECTED_FILES


@pytest.mark.parametrize('name', FILES)
def test_schedule(name):
    batch_size, lr, weight_decay, epochs, milestones = SCHEDULES[data_of(name)]
    if 'resnet50_8xb64_in1k' in name:
        lr = NST_IMAGENET_LR
    cfg = load(name)
    optimizer = {k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != '_scope_'}
    assert optimizer == {'type': 'SGD', 'lr': lr, 'momentum': 0.9, 'weight_decay': weight_decay}
    assert set(cfg.optim_wrapper) == {'optimizer'}  # no clipping, no accumulation, no multipliers
    scheduler = {k: v for k, v in cfg.param_scheduler.items() if k != '_scope_'}
    assert scheduler == {'type': 'MultiStepLR', 'by_epoch': True, 'milestones': milestones, 'gamma': 0.1}
    assert cfg.train_cfg == {'by_epoch': True, 'max_epochs': epochs, 'val_interval': 1}
    assert cfg.train_dataloader.batch_size * GPUS[data_of(name)] == batch_size
    assert cfg.auto_scale_lr.base_batch_size == batch_size


@pytest.mark.parametrize('name', FILES)
def test_runtime(name):
    cfg = load(name)
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.custom_imports == {'imports': ['mmkd_plugin'], 'allow_failed_imports': False}
    assert cfg.randomness.seed == 0
    checkpoint = cfg.default_hooks.checkpoint
    assert checkpoint.backend_args == {'backend': 'atomic'}
    assert checkpoint.max_keep_ckpts == 2
    assert cfg.train_cfg.max_epochs % checkpoint.interval == 0
    teacher_hook = [] if name.startswith('plain/') else [{'type': 'TeacherEvalHook'}]
    assert cfg.custom_hooks == [{'type': 'EpochSeedHook'}, *teacher_hook]


@pytest.mark.parametrize('name', PLAIN)
def test_plain_networks_build_and_count(name):
    from mmpretrain.registry import MODELS

    cfg = load(f'plain/{name}.py')
    model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    assert type(model).__name__ == 'ImageClassifier'
    assert sum(p.numel() for p in model.parameters()) == PLAIN[name]
    model.init_weights()
    classes, size = (100, 32) if data_of(f'{name}.py') == 'cifar100' else (1000, 64)
    model.eval()
    assert model(torch.randn(2, 3, size, size)).shape == (2, classes)


@pytest.mark.parametrize('name', PLAIN)
def test_the_linear_layer_starts_as_published(name):
    """N(0, 0.01), zero bias, for VGG (and for mmpretrain's ResNets); torch's own for the others."""
    from mmpretrain.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(load(f'plain/{name}.py').model)
    model.init_weights()
    fc = model.head.fc
    if name.startswith(('vgg', 'resnet18', 'resnet50')):
        assert fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert (fc.bias == 0).all()
    else:
        bound = fc.in_features**-0.5
        assert fc.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)  # uniform in ± bound
        assert fc.weight.abs().max().item() <= bound


@pair_params
def test_kd(pair):
    temperature, task_weight, kd_weight = KD[pair.data]
    model = load(f'kd/kd_{pair.teacher}_{pair.student}_{pair.data}.py').model
    assert model.task_loss == {'loss_weight': task_weight}
    assert model.losses == {
        'loss_kd': {'type': 'KDLoss', 'on': 'head.fc', 'temperature': temperature, 'loss_weight': kd_weight}
    }


@pair_params
def test_dkd(pair):
    model = load(f'dkd/dkd_{pair.teacher}_{pair.student}_{pair.data}.py').model
    assert 'task_loss' not in model  # weight 1
    assert set(model.losses) == {'loss_dkd'}
    loss = dict(model.losses.loss_dkd)
    schedule = loss.pop('schedule', {'warmup': 1})
    assert schedule == {'warmup': pair.dkd_warmup}
    assert loss.pop('loss_weight', 1.0) == 1.0
    assert loss == {
        'type': 'DKDLoss',
        'on': 'head.fc',
        'alpha': 1.0,
        'beta': pair.beta,
        'temperature': DKD_TEMPERATURE[pair.data],
    }


@pytest.mark.parametrize(('method', 'teacher_name', 'student_name', 'data'), DISTILLATIONS)
def test_the_student_and_its_teacher(method, teacher_name, student_name, data):
    """The student is the plain config's, untouched; the teacher's config and file are named rightly."""
    cfg = load(f'{method}/{method}_{teacher_name}_{student_name}_{data}.py').to_dict()
    model = cfg['model']
    teacher = model.pop('teacher')
    for key in ('losses', 'task_loss'):
        model.pop(key, None)
    assert model.pop('type') == 'Distilled'
    model['type'] = model.pop('student')
    plain = load(f'plain/{student_name}_{data}.py').to_dict()
    for either in (cfg, plain):
        either.pop('custom_hooks')  # test_runtime
    assert cfg == plain
    if 'checkpoint' not in teacher:
        published = zoo(teacher['config'], pretrained=True)
        assert f'{teacher_name}_' in published.model_path
        assert published.model.head.num_classes == model['head']['num_classes']
    else:
        package, _, path = teacher['config'].partition('::')
        assert package == 'mmkd_plugin'
        stem = f'{teacher_name}_{data}'
        assert path == f'classification/plain/{stem}.py'
        teacher_cfg = reading.load(path)
        # what the Runner leaves in the teacher's default work_dir after its last epoch
        last = teacher_cfg.train_cfg.max_epochs
        assert teacher['checkpoint'] == f'work_dirs/{stem}/epoch_{last}.pth'


@pytest.mark.parametrize('name', DISTILLED)
def test_a_distillation_config_adds_at_most_15_lines(name):
    assert reading.lines(f'classification/{name}') <= 15


def test_cifar100_images_reach_the_network_as_published(tmp_path, monkeypatch):
    """A stand-in for CIFAR-100 in its own file format, through the configs' dataset and normalisation."""
    from mmpretrain.datasets import CIFAR100
    from mmpretrain.registry import DATASETS, MODELS

    rng = np.random.default_rng(0)
    folder = tmp_path / 'cifar-100-python'
    folder.mkdir()
    pixels = rng.integers(1, 256, (4, 3 * 32 * 32), dtype=np.uint8)
    for split in ('train', 'test'):
        (folder / split).write_bytes(pickle.dumps({'data': pixels, 'fine_labels': [3, 1, 4, 15]}))
    monkeypatch.setattr(CIFAR100, '_check_integrity', lambda self: True)

    cfg = load('plain/resnet20_cifar100.py')
    train, test = (
        DATASETS.build({**loader.dataset, 'data_root': str(tmp_path)})
        for loader in (cfg.train_dataloader, cfg.test_dataloader)
    )
    preprocess = MODELS.build({'type': 'ClsDataPreprocessor', **cfg.data_preprocessor})
    batch = preprocess({'inputs': [test[0]['inputs']], 'data_samples': [test[0]['data_samples']]})
    mean = np.array([0.5071, 0.4867, 0.4408]).reshape(3, 1, 1)
    std = np.array([0.2675, 0.2565, 0.2761]).reshape(3, 1, 1)
    expected = (pixels[0].reshape(3, 32, 32) / 255 - mean) / std  # the file is RGB, channels first
    np.testing.assert_allclose(batch['inputs'][0].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert batch['data_samples'][0].gt_label.item() == 3

    padded = np.pad(pixels[0].reshape(3, 32, 32), ((0, 0), (4, 4), (4, 4)))
    shifts = {
        view.tobytes()
        for flipped in (padded, padded[:, :, ::-1])
        for y in range(9)
        for x in range(9)
        for view in [flipped[:, y : y + 32, x : x + 32]]
    }
    seen = {train[0]['inputs'].numpy().tobytes() for _ in range(60)}
    assert seen <= shifts  # padded by 4 with black, cropped to 32, flipped or not
    assert len(seen) > 20
