import copy
import math
import re

import pytest
import torch
from torch import nn

from mmkd_plugin.files.fitting import check_finite, load_exactly, rename
from tests.conftest import build, student_cfg


class TestLoadExactly:
    def model(self):
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))

    def test_loads(self):
        model, source = self.model(), self.model()
        load_exactly(model, source.state_dict(), 'x.pth')
        assert torch.equal(model[0].weight, source[0].weight)

    def test_missing_extra_and_other_shapes_are_all_told(self):
        state = self.model().state_dict()
        del state['0.bias']
        state['head.weight'] = torch.zeros(1)
        state['0.weight'] = torch.zeros(4, 2)
        with pytest.raises(ValueError) as error:
            load_exactly(self.model(), state, 'x.pth')
        message = str(error.value)
        assert "'x.pth' does not fit Sequential" in message
        assert '1 missing (in the model, not in the file): 0.bias' in message
        assert '1 unexpected (in the file, not in the model): head.weight' in message
        assert '0.weight: (4, 2) in the file, (3, 2) in the model' in message

    def test_differences_can_be_allowed_by_name(self):
        model, state = self.model(), self.model().state_dict()
        kept = model[0].bias.clone()
        del state['0.bias']
        state['head.weight'] = torch.zeros(1)
        load_exactly(model, state, 'x', allow_missing=('0.bias',), allow_unexpected=('head.',))
        assert torch.equal(model[0].bias, kept)
        assert torch.equal(model[0].weight, state['0.weight'])

    def test_nothing_is_loaded_when_something_is_wrong(self):
        model, state = self.model(), self.model().state_dict()
        before = model[0].weight.clone()
        del state['0.bias']
        with pytest.raises(ValueError):
            load_exactly(model, state, 'x')
        assert torch.equal(model[0].weight, before)

    def test_old_files_without_batch_counter(self):
        state = self.model().state_dict()
        del state['1.num_batches_tracked']
        load_exactly(self.model(), state, 'x')

    def test_values_that_are_no_tensors(self):
        state = {**self.model().state_dict(), '0.weight': 'text'}
        with pytest.raises(ValueError, match=r'1 no tensors: 0.weight \(str\)'):
            load_exactly(self.model(), state, 'x')

    def test_empty_state(self):
        with pytest.raises(ValueError, match='6 missing'):
            load_exactly(self.model(), {}, 'x')


def message(model, state, **options):
    with pytest.raises(ValueError) as error:
        load_exactly(model, state, 'x.pth', **options)
    return str(error.value)


def fits_as_told(model, state):
    """The rules that an error tells, after they were seen to load everything."""
    text = message(model, state)
    found = re.search(r'Everything fits with revise_keys=(\[.*\]) beside its path$', text)
    assert found is not None, text
    rules = eval(found[1])
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.constant_(parameter, 9)
    load_exactly(other, state, 'x.pth', revise_keys=rules)
    assert not any((parameter == 9).any() for parameter in other.parameters())
    model.load_state_dict(other.state_dict())
    return rules


def torchvision_names(state):
    return {k.removeprefix('backbone.').removeprefix('head.'): v for k, v in state.items()}


class TestHints:
    @pytest.mark.parametrize('prefix', ['model', 'module', 'backbone', 'student', 'encoder', '_orig_mod', 'a.b'])
    def test_foreign_prefix(self, student, prefix):
        state = {f'{prefix}.{key}': value for key, value in student.state_dict().items()}
        assert fits_as_told(student, state) == [('^' + re.escape(f'{prefix}.'), '')]

    def test_torchvisions_names(self, student):
        rules = fits_as_told(student, torchvision_names(student.state_dict()))
        assert rules == [(r'^(?!fc\.)', 'backbone.'), (r'^fc\.', 'head.fc.')]

    def test_torchvisions_names_below_a_prefix(self, student):
        state = {f'net.{key}': value for key, value in torchvision_names(student.state_dict()).items()}
        assert fits_as_told(student, state) == [(r'^net\.(?!fc\.)', 'backbone.'), (r'^net\.fc\.', 'head.fc.')]

    def test_torchvisions_names_with_other_classes(self, student):
        state = torchvision_names(build(student_cfg(head={**student_cfg()['head'], 'num_classes': 3})).state_dict())
        text = message(student, state)
        assert 'this is left:\n  2 of another shape: head.fc.weight: (3, 32) in the file, (10, 32)' in text

    def test_torchvisions_own_file_for_mmpretrains_model(self):
        torchvision = pytest.importorskip('torchvision')
        model = build({
            'type': 'ImageClassifier', 'backbone': {'type': 'ResNet', 'depth': 18},
            'neck': {'type': 'GlobalAveragePooling'},
            'head': {'type': 'LinearClsHead', 'num_classes': 1000, 'in_channels': 512},
        })  # fmt: skip
        other = torchvision.models.resnet18()
        fits_as_told(model, other.state_dict())
        images = torch.randn(1, 3, 64, 64)
        features = model.eval().extract_feat(images)
        assert torch.allclose(model.head.fc(features[-1]), other.eval()(images), atol=1e-5)

    def test_bare_backbone(self, student):
        text = message(student, student.backbone.state_dict())
        assert "With revise_keys=[('^', 'backbone.')] beside its path, this is left:\n  2 missing" in text
        assert text.endswith("if no loss reads what is missing, allow_missing=['head.']")
        kept = student.head.fc.weight.clone()
        load_exactly(student, student.backbone.state_dict(), 'x', ('head.',), revise_keys=[('^', 'backbone.')])
        assert torch.equal(student.head.fc.weight, kept)

    def test_whole_classifier_for_a_backbone(self, student):
        text = message(student.backbone, student.state_dict())
        assert "revise_keys=[('^backbone\\\\.', '')]" in text
        assert text.endswith("allow_unexpected=['head.']")

    def test_two_that_fit_are_both_told(self, student):
        own = student.state_dict()
        state = {f'{side}.{key}': value for side in ('student', 'teacher') for key, value in own.items()}
        assert r"revise_keys=[('^student\\.', '')] or revise_keys=[('^teacher\\.', '')]" in message(student, state)

    def test_rules_that_were_given_are_kept(self, student):
        state = {f'a.b.{key}': value for key, value in student.state_dict().items()}
        text = message(student, state, revise_keys=[('^a', 'c')])
        assert r"Everything fits with revise_keys=[('^a', 'c'), ('^c\\.b\\.', '')]" in text

    def test_another_architecture_gets_no_such_advice(self, student):
        deeper = {**student.state_dict(), 'backbone.layer4.9.conv1.weight': torch.ones(1)}
        for state in (deeper, {f'model.{key}': value for key, value in deeper.items()}):
            text = message(student, state)
            assert "allow_unexpected=['backbone" not in text
            assert text.endswith("allow_unexpected=['...']")
        assert 'revise_keys' not in message(student, {f'blocks.{i}.mlp.weight': torch.ones(i + 1) for i in range(9)})


class TestRename:
    def test_is_mmengines(self):
        from mmengine.runner.checkpoint import _load_checkpoint_to_model

        rules = [(r'^net\.(\d)', r'\1'), ('weights$', 'weight')]
        state = {'net.0.weights': torch.ones(3, 2), 'net.0.bias': torch.ones(3)}
        theirs = nn.Sequential(nn.Linear(2, 3))
        _load_checkpoint_to_model(theirs, {'state_dict': state}, strict=True, revise_keys=rules)
        ours = nn.Sequential(nn.Linear(2, 3))
        load_exactly(ours, state, 'x', revise_keys=rules)
        assert torch.equal(ours.state_dict()['0.weight'], theirs.state_dict()['0.weight'])

    def test_two_names_that_become_one(self):
        with pytest.raises(ValueError, match=r"turns both 'a.x' and 'b.x' of 'f.pth' into 'x'"):
            rename({'a.x': 1, 'b.x': 2}, [(r'^[ab]\.', '')], 'f.pth')

    def test_replacement_without_its_group(self):
        with pytest.raises(ValueError, match=r"revise_keys has \('a', .*\): invalid group reference"):
            rename({'a': 1}, [('a', r'\1')], 'f.pth')


class TestFinite:
    @pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
    def test_broken_weights_are_refused_by_name(self, value):
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        state['0.weight'][1, 1] = value
        before = copy.deepcopy(model.state_dict()['0.weight'])
        with pytest.raises(ValueError, match=r"'x.pth' holds NaN or infinite weights, 1 of 7 tensors: 0.weight\."):
            load_exactly(model, state, 'x.pth')
        assert torch.equal(model.state_dict()['0.weight'], before)

    def test_half_precision_and_buffers_too(self):
        with pytest.raises(ValueError, match='2 of 3 tensors: a, b'):
            check_finite({'a': torch.tensor([math.nan]).half(), 'b': torch.tensor(math.inf), 'c': torch.tensor(1)}, 'x')

    def test_infinities_that_the_model_is_built_with_are_meant(self):
        model = nn.Module()
        model.register_buffer('mask', torch.tensor([0.0, -math.inf]))
        load_exactly(model, {'mask': torch.tensor([-math.inf, 0.0])}, 'x')
        assert model.state_dict()['mask'][0] == -math.inf
