"""Accuracy of old and of new classes, against counting."""

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from mmpretrain.structures import DataSample

pytestmark = pytest.mark.openmmlab
CLASSES = 6


def evaluated(scores, labels, old=4, classes=CLASSES, **options):
    evaluator = Evaluator([{'type': 'OldNewAccuracy', 'old': old, **options}])
    evaluator.dataset_meta = {'classes': tuple(map(str, range(classes)))}
    samples = [DataSample().set_pred_score(s).set_gt_label(int(label)) for s, label in zip(scores, labels, strict=True)]
    for part in (samples[:7], samples[7:]):
        evaluator.process([sample.to_dict() for sample in part], None)
    return evaluator.evaluate(len(samples))


@pytest.fixture
def predictions():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(40, CLASSES, generator=generator), torch.randint(CLASSES, (40,), generator=generator)


def test_against_counting(predictions):
    scores, labels = predictions
    found = evaluated(scores, labels)
    right, old = scores.argmax(1) == labels, labels < 4
    within = torch.where(old, scores[:, :4].argmax(1), 4 + scores[:, 4:].argmax(1)) == labels
    expected = {
        'accuracy/top1': right, 'accuracy/old': right[old], 'accuracy/new': right[~old],
        'accuracy/old_within': within[old], 'accuracy/new_within': within[~old],
    }  # fmt: skip
    assert found == {name: pytest.approx(100 * hits.float().mean().item(), abs=1e-4) for name, hits in expected.items()}
    assert len({round(value, 3) for value in found.values()}) > 3


def test_further_numbers_keep_their_names(predictions):
    found = evaluated(*predictions, topk=(1, 3))
    assert found['accuracy/old_top3'] > found['accuracy/old']
    assert found['accuracy/new_top3'] > found['accuracy/new']


def test_where_one_kind_is_missing_there_is_no_such_number(predictions):
    scores, labels = predictions
    found = evaluated(scores, labels % 4)
    assert 'accuracy/new' not in found
    assert found['accuracy/old'] == found['accuracy/top1']


def test_an_older_network_says_nothing_of_new_classes(predictions):
    scores, labels = predictions
    found = evaluated(scores[:, :4], labels)
    assert found['accuracy/new'] == found['accuracy/new_within'] == 0
    assert found['accuracy/old'] == pytest.approx(found['accuracy/old_within'], abs=1e-4)
    assert found['accuracy/old'] > 0


def test_mistakes(predictions):
    for old in (0, -1, True, 'two', None):
        with pytest.raises(ValueError, match=f'old={old!r} given'):
            METRICS.build({'type': 'OldNewAccuracy', 'old': old})
    with pytest.raises(ValueError, match='old=6 given, and the data know 6 classes'):
        evaluated(predictions[0], predictions[1], old=6)
