"""The networks that the configs name are the published ones, and what is read of them is what the table says."""

import copy
import functools

import pytest
import torch
from torch import nn

import mmkd_plugin.models  # noqa: F401  the networks the configs name
from tests.configs.reading import DISTILLED, TABLE, Tap, network, network_of, record

pytestmark = pytest.mark.openmmlab

ROI_LOGITS = 'roi_head.bbox_head.fc_cls'
CLASSIFIERS = {name: entry for name, entry in TABLE.networks.items() if 'stages' in entry}
COUNTED = [name for name, entry in CLASSIFIERS.items() if 'parameters' in entry]
READ = [name for name, entry in CLASSIFIERS.items() if 'before_relu' in entry]
DETECTED = [recipe for recipe in DISTILLED if TABLE.settings[recipe.setting]['scope'] == 'mmdet']
DETECTOR_PAIRS = sorted({(recipe.setting, recipe.pair) for recipe in DETECTED})
COCO = [name for name, entry in TABLE.networks.items() if '180k_coco' in entry.get('plain', [])]
# What ReviewKD compares, shallow to deep: channels of the student and of the teacher, height and width.
REVIEWKD_SHAPES = {
    'resnet32x4_resnet8x4': ([64, 128, 256, 256], [64, 128, 256, 256], [32, 16, 8, 1]),
    'resnet34_resnet18': ([64, 128, 256, 512, 512], [64, 128, 256, 512, 512], [56, 28, 14, 7, 1]),
    'resnet50_mobilenet_v1': ([128, 256, 512, 1024, 1024], [256, 512, 1024, 2048, 2048], [56, 28, 14, 7, 1]),
}


def setting_of(name: str) -> str:
    """A setting in which a classifier is a student or a teacher."""
    return next(recipe.setting for recipe in DISTILLED if name in (recipe.student, recipe.teacher))


def classifier(name: str):
    return network(name, setting_of(name))


def small_size(name: str) -> int:
    """Of images, in pixels; on ImageNet smaller than the real ones."""
    return {'cifar100': 32, 'digits': 28}.get(setting_of(name), 64)


def read(model, paths, size):
    """What is tapped at some paths for random images."""
    images = torch.rand(2, next(model.parameters()).size(1), size, size) - 0.5
    values = record(model.eval(), paths, lambda: model(images))
    return [values[path] for path in paths]


@pytest.mark.parametrize('name', COUNTED)
def test_classifiers_are_the_published_ones(name):
    """Parameters; classes; the linear layer's start: N(0, 0.01) and no bias for VGG and mmpretrain's, else torch's."""
    settings = TABLE.networks[name]['plain']
    assert len({id(network(name, setting)) for setting in settings}) == 1, 'the settings differ in the network'
    model = copy.deepcopy(network(name, settings[0]))
    assert type(model).__name__ == 'ImageClassifier'
    assert sum(p.numel() for p in model.parameters()) == TABLE.networks[name]['parameters']
    torch.manual_seed(0)
    model.init_weights()
    classes, size = (100, 32) if settings == ['cifar100'] else (1000, 64)
    model.eval()
    assert model(torch.randn(2, 3, size, size)).shape == (2, classes)
    fc = model.head.fc
    if name.startswith('vgg') or name in ('resnet18', 'resnet50'):
        assert fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert (fc.bias == 0).all()
    else:
        bound = fc.in_features**-0.5
        assert fc.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)  # uniform in ± bound
        assert fc.weight.abs().max().item() <= bound


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_the_stages_are_all_there_are(name):
    layers = {child for child, _ in classifier(name).backbone.named_children() if child.startswith('layer')}
    assert layers == {f'layer{number + 1}' for number in range(CLASSIFIERS[name]['stages'])}


@pytest.mark.parametrize('name', READ)
def test_what_is_read_before_a_relu_is_that_of_the_stages_end(name):
    """It gives, through that ReLU, what its stage puts out."""
    before = [f'backbone.layer{i}.{module}' for i, module in enumerate(CLASSIFIERS[name]['before_relu'], start=1)]
    ends = [f'backbone.layer{i}' for i in range(1, len(before) + 1)]
    assert len(before) == CLASSIFIERS[name]['stages']
    values = read(classifier(name), [*before, *ends], small_size(name))
    for pre, post in zip(values[: len(before)], values[len(before) :], strict=True):
        assert pre.min() < 0
        assert torch.equal(pre.relu(), post)


def test_inputs_that_classifiers_are_read_at_are_such():
    """No method reads the input of a module of which the test above knows nothing."""
    for recipe in DISTILLED:
        for loss in recipe.losses.values():
            for side, name in (('student', recipe.student), ('teacher', recipe.teacher)):
                known = [
                    f'backbone.layer{i}.{m}' for i, m in enumerate(CLASSIFIERS.get(name, {}).get('before_relu', []), 1)
                ]
                inputs = [path for path in loss['on'].get(side, []) if path.endswith(':input')]
                assert name not in CLASSIFIERS or set(inputs) <= set(known), (recipe.path, inputs)


@pytest.mark.parametrize('pair', REVIEWKD_SHAPES)
def test_what_reviewkd_compares_has_the_published_shapes(pair):
    (recipe,) = (recipe for recipe in DISTILLED if (recipe.method, recipe.pair) == ('reviewkd', pair))
    *channels, sizes = REVIEWKD_SHAPES[pair]
    size = 32 if recipe.setting == 'cifar100' else 224
    sides = zip(('student', 'teacher'), (recipe.student, recipe.teacher), channels, strict=True)
    for side, name, expected in sides:
        values = read(classifier(name), recipe.losses['reviewkd']['on'][side], size)
        assert [value.size(1) for value in values] == expected
        assert [value.size(2) if value.ndim == 4 else 1 for value in values] == sizes


@functools.cache
def maps(setting: str, pair: str) -> dict[str, dict[str, torch.Size]]:
    """Height and width of all that the methods read of a pair of detectors, by side and path; nothing is computed."""
    recipes = [recipe for recipe in DETECTED if (recipe.setting, recipe.pair) == (setting, pair)]
    shapes = {}
    for side in ('student', 'teacher'):
        paths = {path for recipe in recipes for loss in recipe.losses.values() for path in loss['on'][side]}
        name = getattr(recipes[0], side)
        device = 'cpu' if 'dconv' in name else 'meta'  # mmcv's deformable convolution computes something
        model = network(name, setting, device).eval()
        face = network_of(model)
        whole = {path for path in paths if face.count_levels(Tap.parse(path))}  # heads, compared by their scores
        features = sorted(path for path in paths - whole if not path.startswith('roi_head'))
        features += [f'{path}[0][{i}]' for path in whole for i in range(face.count_levels(Tap.parse(path)))]
        modules = [Tap.parse(path).path for path in features]
        run = functools.partial(face.run, torch.zeros(1, 3, 128, 128, device=device), modules)
        values = record(model, features, run)
        shapes[side] = {path: value.shape[2:] for path, value in values.items()}
        shapes[side] |= {path: [v for k, v in shapes[side].items() if k.startswith(f'{path}[0]')] for path in whole}
        for path in paths - set(features):
            assert model.get_submodule(path)
    return shapes


@pytest.mark.parametrize(('setting', 'pair'), DETECTOR_PAIRS)
def test_detectors_are_compared_on_maps_of_equal_size(setting, pair):
    shapes = maps(setting, pair)
    for recipe in (recipe for recipe in DETECTED if (recipe.setting, recipe.pair) == (setting, pair)):
        for name, loss in recipe.losses.items():
            sizes = [[shapes[side].get(path) for path in loss['on'][side]] for side in ('student', 'teacher')]
            assert sizes[0] == sizes[1], (recipe.path, name)
            if name == 'nst':
                assert sizes[0] == [(8, 8)]  # stride 16
            if loss['on']['student'] == [ROI_LOGITS]:
                classes = {'180k_coco': 81, 'digit_scenes': 11}.get(setting, 21)  # background is the last
                models = (network(name, setting, 'meta') for name in (recipe.student, recipe.teacher))
                assert [model.get_submodule(ROI_LOGITS).out_features for model in models] == [classes, classes]


@pytest.mark.parametrize('name', COCO)
def test_coco_students_freeze_what_detectron2_freezes(name):
    backbone = network(name, '180k_coco', 'meta').train().backbone
    for norm in (module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)):
        assert not norm.training
        assert not norm.weight.requires_grad
    frozen = {
        name.split('.')[0]
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and not module.weight.requires_grad
    }
    assert frozen == (set() if 'mobilenet' in name else {'conv1', 'layer1'})
