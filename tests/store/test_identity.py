"""What records depend on, as data that differ when it does."""

import functools

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset

from mmkd_plugin.datasets import Digits
from mmkd_plugin.store import differences, identity_of_data, identity_of_pipeline, versions
from mmkd_plugin.store.identity import describe, identity_of_preprocessing, sha256_of_file, sha256_of_weights
from tests.conftest import build, student_cfg

pytestmark = pytest.mark.openmmlab


def digits(padding=2, **more):
    pipeline = [{'type': 'RandomCrop', 'crop_size': 28, 'padding': padding}, {'type': 'PackInputs'}]
    return Digits(pipeline=pipeline, **{'per_class': 2, **more})


def test_pipelines_tell_their_arguments():
    one, other = identity_of_pipeline(digits()), identity_of_pipeline(digits(3))
    assert list(differences(one, identity_of_pipeline(digits()))) == []
    assert list(differences(one, other)) == ['[0][0].padding: 2 then, 3 now']
    assert len(identity_of_pipeline(ConcatDataset([digits(), digits()]))) == 2


@pytest.mark.parametrize('other', [
    {'per_class': 3}, {'classes': [0, 1]}, {'label_noise': 0.2}, {'copied': 1, 'copies': 1}, {'split': 'test'},
])  # fmt: skip
def test_other_data_are_others(other):
    assert identity_of_data(digits())['digest'] == identity_of_data(digits())['digest']
    assert identity_of_data(digits())['digest'] != identity_of_data(digits(**other))['digest']


def test_files_of_one_name_with_other_images_in_memory():
    one, other = (digits(copied=1, copies=1, variant_seed=seed) for seed in (0, 1))
    assert identity_of_data(one)['digest'] != identity_of_data(other)['digest']
    repeated = RepeatDataset(digits(), 2)
    assert identity_of_data(repeated)['digest'] != identity_of_data(digits())['digest']


def test_data_that_do_not_tell_their_samples_are_refused():
    with pytest.raises(ValueError, match='TensorDataset does not tell which samples'):
        identity_of_data(torch.utils.data.TensorDataset(torch.zeros(3)))


class Thing:
    def __init__(self, **values):
        self.__dict__.update(values)


def test_anything_is_described():
    thing = Thing(
        small=np.array([1.0, 2.0]), large=np.zeros(100), inner=Thing(a=(1, 'x')), many={3, 1}, call=len, no=object()
    )
    told = describe(thing)
    assert told['small'] == [1.0, 2.0]
    assert told['large'].startswith('(100,) float64 ')
    assert told['inner']['a'] == [1, 'x']
    assert told['many'] == ['1', '3']
    assert told['call'] == 'builtins.len'
    assert told['no'] == '<object object>'
    endless = Thing()
    endless.__dict__['again'] = endless
    assert 'Thing' in str(describe(endless))
    assert describe(functools.partial(len)) == describe(functools.partial(len))


def test_weights_and_files(tmp_path):
    model = build(student_cfg())
    before = sha256_of_weights(model.state_dict())
    assert sha256_of_weights(build(student_cfg()).state_dict()) == before
    with torch.no_grad():
        model.head.fc.bias[3] += 1e-6
    assert sha256_of_weights(model.state_dict()) != before
    (tmp_path / 'file').write_bytes(b'abc' * 1_000_000)
    assert sha256_of_file(tmp_path / 'file')[:8] == 'f4096a13'


def test_preprocessing_is_the_teachers_own():
    one, other = build(student_cfg()).data_preprocessor, build(student_cfg()).data_preprocessor
    other.mean += 1
    told = identity_of_preprocessing(one, other)
    assert told['mean'] == [[[pytest.approx(33.3)]]]
    assert identity_of_preprocessing(None, other)['mean'] == [[[pytest.approx(34.3)]]]


def test_versions_are_told():
    assert {'mmengine', 'numpy', 'torch'} <= versions().keys()
