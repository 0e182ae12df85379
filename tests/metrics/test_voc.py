"""Average precision of old and of new classes, against that of each class."""

import numpy as np
import pytest
import torch
from mmdet.evaluation.functional import eval_map
from mmengine.registry import METRICS

pytestmark = pytest.mark.openmmlab
CLASSES = 5


def metric(old=2, classes=CLASSES, **options):
    built = METRICS.build({'type': 'OldNewVOCMetric', 'old': old, 'eval_mode': 'area', **options})
    built.dataset_meta = {'classes': tuple(map(str, range(classes))), 'dataset_type': None}
    return built


def boxes_of(generator, count):
    corner = torch.randint(0, 60, (count, 2), generator=generator)
    return torch.cat([corner, corner + 20], 1).float()


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(12):
        true = boxes_of(generator, 5)
        labels = torch.randint(CLASSES, (5,), generator=generator)
        found = torch.cat([true + 2, boxes_of(generator, 2)])  # some right, some nowhere
        named = torch.cat([labels, torch.randint(CLASSES, (2,), generator=generator)])
        named[0] = (named[0] + 1) % CLASSES
        scores = torch.rand(7, generator=generator)
        made.append({
            'gt_instances': {'labels': labels, 'bboxes': true},
            'ignored_instances': {'labels': labels[:0], 'bboxes': true[:0]},
            'pred_instances': {'labels': named, 'bboxes': found, 'scores': scores},
        })  # fmt: skip
    return made


def test_means_over_the_classes_of_each_kind(samples):
    own = metric()
    own.process({}, samples)
    of_classes = eval_map([found for _, found in own.results], [truth for truth, _ in own.results], iou_thr=0.5,
                          eval_mode='area', use_legacy_coordinate=True, logger='silent')[1]  # fmt: skip
    precision = [float(np.mean(one['ap'])) for one in of_classes]
    found = own.compute_metrics(own.results)
    assert found['mAP'] == pytest.approx(np.mean(precision), abs=1e-6)
    assert found['mAP_old'] == pytest.approx(np.mean(precision[:2]), abs=1e-6)
    assert found['mAP_new'] == pytest.approx(np.mean(precision[2:]), abs=1e-6)
    assert found['AP50_old'] == round(found['mAP_old'], 3)
    assert len({round(value, 3) for value in found.values()}) == 3
    assert own.dataset_meta['classes'] == tuple('01234')


def test_it_is_mmdets_over_all(samples):
    own, theirs = metric(), METRICS.build({'type': 'mmdet.VOCMetric', 'eval_mode': 'area'})
    theirs.dataset_meta = own.dataset_meta
    for one in (own, theirs):
        one.process({}, samples)
    expected = theirs.compute_metrics(theirs.results)
    found = own.compute_metrics(own.results)
    assert {name: found[name] for name in expected} == dict(expected)


def test_mistakes(samples):
    for old in (0, True, 'two'):
        with pytest.raises(ValueError, match=f'old={old!r} given'):
            metric(old)
    with pytest.raises(ValueError, match="metric='recall' given, expected 'mAP'"):
        metric(metric='recall')
    own = metric(5)
    own.process({}, samples)
    with pytest.raises(ValueError, match='old=5 given, and the data know 5 classes'):
        own.compute_metrics(own.results)
