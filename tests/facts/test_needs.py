import copy
from math import inf

import pytest
import torch
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample

from mmkd_plugin import distill
from mmkd_plugin.facts import NEEDS, Batch, Progress, register_need
from mmkd_plugin.losses import DistillLoss
from mmkd_plugin.networks import BoxBranch, Region
from tests.conftest import batch as tiny_batch

IMAGES = torch.zeros(2, 1, 8, 8)


def samples(*values):
    return [DataSample(metainfo={'sample_index': 10 + i}).set_gt_label(v) for i, v in enumerate(values)]


def get(need, data_samples):
    return Batch(IMAGES, data_samples).get(need)


def test_labels_and_indices():
    batch = samples(3, 1, 2)
    assert get('labels', batch).tolist() == [3, 1, 2]
    assert get('labels', batch).dtype == torch.int64
    assert get('sample_idx', batch).tolist() == [10, 11, 12]


def test_label_tensor_of_a_plain_model():
    assert get('labels', torch.tensor([4, 5])).tolist() == [4, 5]


def test_soft_labels_are_refused():
    with pytest.raises(TypeError, match=r'soft ones.*mixup'):
        get('labels', [DataSample().set_gt_score(torch.tensor([0.3, 0.7]))])


def test_missing_and_multiple_labels():
    with pytest.raises(ValueError, match='no gt_label'):
        get('labels', [DataSample()])
    with pytest.raises(ValueError, match=r'an image with \[1, 2\]'):
        get('labels', samples([1, 2]))
    with pytest.raises(ValueError, match='data_samples=NoneType'):
        get('labels', None)


def test_missing_index():
    with pytest.raises(ValueError, match=r"add dict\(type='DistillHook'\) to custom_hooks"):
        get('sample_idx', [DataSample()])


def test_an_image_that_was_refused():
    with pytest.raises(ValueError, match='the pipeline refused an image'):
        get('sample_idx', [DataSample(metainfo={'sample_index': 3}), DataSample(metainfo={'sample_index': -1})])


def test_rows_of_a_box_branch():
    rois = torch.tensor([[1.0, 0, 0, 4, 4], [0, 0, 0, 2, 2], [1, 1, 1, 3, 3]])
    region = Region(rois, torch.tensor([5, 10, 2]))
    batch = Batch(IMAGES, samples(0, 1), [(8, 8), (6, 7)], Progress(3, 40), {BoxBranch(): region})
    assert batch.get('labels', BoxBranch()).tolist() == [5, 10, 2]
    assert batch.get('sample_idx', BoxBranch()).tolist() == [11, 10, 11]
    assert batch.get('epoch', BoxBranch()) == 3
    assert batch.get('iteration', BoxBranch()) == 40
    assert batch.get('labels').tolist() == [0, 1]
    assert batch.get('sample_idx').tolist() == [10, 11]
    assert batch.get('image_sizes').tolist() == [[8, 8], [6, 7]]
    assert batch.get('image_sizes', BoxBranch()).tolist() == [[6, 7], [8, 8], [6, 7]]


def test_the_size_of_the_batch():
    assert get('input_size', None) == (8, 8)


def test_sizes_that_nobody_knows_are_the_batchs():
    assert get('image_sizes', None).tolist() == [[8, 8], [8, 8]]


def test_boxes_are_rows_with_their_image():
    pytest.importorskip('mmdet')
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes

    found = [torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]]), torch.zeros(0, 4), torch.tensor([[1.0, 1, 2, 2]])]
    batch = []
    for number, corners in enumerate(found):
        sample = DetDataSample()
        labels = torch.full((len(corners),), number)
        boxes = HorizontalBoxes(corners) if number == 2 else corners
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        batch.append(sample)
    assert get('boxes', batch).tolist() == [[0, 0, 1, 2, 3], [0, 4, 5, 6, 7], [2, 1, 1, 2, 2]]
    assert get('box_labels', batch).tolist() == [0, 0, 2]
    nothing = [inf, inf, -inf, -inf]
    padded = [[[0, 1, 2, 3], [4, 5, 6, 7]], [nothing, nothing], [[1, 1, 2, 2], nothing]]
    assert get('padded_boxes', batch).tolist() == padded
    with pytest.raises(ValueError, match='an image without gt_instances'):
        get('boxes', samples(1, 2))


def test_turned_boxes_are_refused():
    from mmdet.structures import DetDataSample

    sample = DetDataSample()
    sample.gt_instances = InstanceData(bboxes=torch.zeros(4, 5), labels=torch.zeros(4))
    with pytest.raises(ValueError, match=r'some of shape \(4, 5\), expected \(boxes, 4\)'):
        get('boxes', [sample])


def test_a_need_without_an_example_waits_for_the_first_step(student, teacher):
    class Hard(DistillLoss):
        needs = ('difficulty',)

        def forward(self, student, teacher, difficulty):
            return (difficulty * (student - teacher).square().mean(1)).mean()

    def difficulty(batch):
        return torch.tensor([float(sample.gt_label) for sample in batch.data_samples])

    for example in (None, lambda batch: torch.ones(len(batch.images))):
        register_need('difficulty', for_rows=True, example=example)(difficulty)
        try:
            losses = {'loss_h': {'type': Hard, 'on': 'head.fc'}}
            model = distill(copy.deepcopy(student), losses, teacher=copy.deepcopy(teacher)).train()
            assert model(**tiny_batch(), mode='loss')['loss_h'] > 0
        finally:
            del NEEDS['difficulty']


def test_assignments_of_no_head():
    with pytest.raises(ValueError, match='0 dense heads of the student told theirs'):
        get('assignments', samples(1))


def test_the_list_is_open():
    @register_need('brightness', for_rows=True)
    def brightness(batch):
        calls.append(1)
        return batch.images.mean((1, 2, 3))

    calls: list[int] = []
    try:
        batch = Batch(torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]))
        assert batch.get('brightness').tolist() == [0, 1]
        batch.get('brightness')
        assert len(calls) == 1  # once in a step
        with pytest.raises(ValueError, match='not taken yet'):
            register_need('brightness')
    finally:
        del NEEDS['brightness']
    for name in ('student', 'two words'):
        with pytest.raises(ValueError, match='expected an identifier'):
            register_need(name)
