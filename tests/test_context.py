import pytest
import torch
from mmpretrain.structures import DataSample

from mmkd_plugin.context import labels, sample_idx

CPU = torch.device('cpu')


def samples(*values):
    return [DataSample(metainfo={'sample_idx': 10 + i}).set_gt_label(v) for i, v in enumerate(values)]


def test_labels_and_indices():
    batch = samples(3, 1, 2)
    assert labels(batch, CPU).tolist() == [3, 1, 2]
    assert labels(batch, CPU).dtype == torch.int64
    assert sample_idx(batch, CPU).tolist() == [10, 11, 12]


def test_label_tensor_of_a_plain_model():
    assert labels(torch.tensor([4, 5]), CPU).tolist() == [4, 5]


def test_soft_labels_are_refused():
    batch = [DataSample().set_gt_score(torch.tensor([0.3, 0.7]))]
    with pytest.raises(TypeError, match=r'soft ones.*mixup'):
        labels(batch, CPU)


def test_missing_and_multiple_labels():
    with pytest.raises(ValueError, match='no gt_label'):
        labels([DataSample()], CPU)
    with pytest.raises(ValueError, match=r'an image with \[1, 2\]'):
        labels(samples([1, 2]), CPU)
    with pytest.raises(ValueError, match='data_samples=NoneType'):
        labels(None, CPU)


def test_missing_index():
    with pytest.raises(ValueError, match='meta_keys'):
        sample_idx([DataSample()], CPU)
