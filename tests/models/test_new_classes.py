"""Cross-entropy among new classes."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mmkd_plugin.models import NewClassesCrossEntropy
from tests.conftest import batch, build, student_cfg

pytestmark = pytest.mark.openmmlab


def test_it_is_that_of_a_head_for_the_new_classes_alone():
    scores = torch.randn(6, 7, requires_grad=True)
    labels = torch.tensor([3, 4, 5, 6, 3, 4])
    value = NewClassesCrossEntropy(3, loss_weight=0.5)(scores, labels)
    torch.testing.assert_close(value, 0.5 * F.cross_entropy(scores[:, 3:], labels - 3))
    (slope,) = torch.autograd.grad(value, scores)
    assert not slope[:, :3].any()
    assert slope[:, 3:].all()
    torch.testing.assert_close(NewClassesCrossEntropy(3)(scores, labels, avg_factor=12), value)


def test_in_a_classifier_in_any_scope():
    cfg = student_cfg()
    cfg['head']['loss'] = {'type': 'NewClassesCrossEntropy', 'old': 6}
    model = build(cfg)
    data = batch(4)
    for sample, label in zip(data['data_samples'], (6, 7, 8, 9), strict=True):
        sample.set_gt_label(label)
    scores = model.eval()(data['inputs'])
    expected = F.cross_entropy(scores[:, 6:], torch.tensor([0, 1, 2, 3]))
    torch.testing.assert_close(model(**data, mode='loss')['loss'], expected)


def test_mistakes():
    scores = torch.randn(2, 200)
    # 101 less 201 is -100, which torch would leave out
    for labels in ([2, 1], [0, 3]):
        with pytest.raises(ValueError, match=f'an image is of class {min(labels)}, one of the 2 old ones'):
            NewClassesCrossEntropy(2)(scores, torch.tensor(labels))
    with pytest.raises(ValueError, match='one of the 150 old ones'):
        NewClassesCrossEntropy(150)(scores, torch.tensor([50, 160]))
    with pytest.raises(ValueError, match='expected one class for each image'):
        NewClassesCrossEntropy(2)(scores, torch.rand(2, 200))
    with pytest.raises(ValueError, match='old=200 given, and the head has 200 classes'):
        NewClassesCrossEntropy(200)(scores, torch.tensor([1, 2]))
    for old in (0, 1.5, True, None):
        with pytest.raises(ValueError, match=f'old={old!r} given'):
            MODELS.build({'type': 'NewClassesCrossEntropy', 'old': old})
