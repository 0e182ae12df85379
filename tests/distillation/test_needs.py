import pytest
import torch
from mmpretrain.structures import DataSample

from mmkd_plugin.distillation.needs import Context, labels, sample_idx
from mmkd_plugin.networks.detectors import BoxBranch, Region

CPU = torch.device('cpu')


def samples(*values):
    return [DataSample(metainfo={'sample_index': 10 + i}).set_gt_label(v) for i, v in enumerate(values)]


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
    with pytest.raises(ValueError, match=r"add dict\(type='DistillHook'\) to custom_hooks"):
        sample_idx([DataSample()], CPU)


def test_rows_of_a_box_branch():
    rois = torch.tensor([[1.0, 0, 0, 4, 4], [0, 0, 0, 2, 2], [1, 1, 1, 3, 3]])
    region = Region(rois, torch.tensor([5, 10, 2]))
    context = Context(3, samples(0, 1), CPU, {BoxBranch(): region})
    assert context.get('labels', BoxBranch()).tolist() == [5, 10, 2]
    assert context.get('sample_idx', BoxBranch()).tolist() == [11, 10, 11]
    assert context.get('epoch', BoxBranch()) == 3
    assert context.get('labels').tolist() == [0, 1]
    assert context.get('sample_idx').tolist() == [10, 11]
