"""Average precision of old and of new classes; imported where mmdet is there."""

from collections.abc import Sequence
from typing import Any

from mmdet.evaluation.metrics import VOCMetric

from ..options import check_whole
from .split import check_fewer


class OldNewVOCMetric(VOCMetric):
    """See :func:`mmkd_plugin.metrics.OldNewVOCMetric`."""

    dataset_meta: Any

    def __init__(self, old: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.old = check_whole(old, 'OldNewVOCMetric: old', low=1)
        if self.metric != 'mAP':
            raise ValueError(f"OldNewVOCMetric: metric={self.metric!r} given, expected 'mAP'; recall knows no classes")

    def compute_metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """Over all classes, and over old and new ones."""
        meta: Any = self.dataset_meta
        check_fewer(self.old, meta, 'OldNewVOCMetric')
        metrics = dict(super().compute_metrics(list(results)))
        try:
            for name, part in (('old', slice(0, self.old)), ('new', slice(self.old, len(meta['classes'])))):
                self.dataset_meta = {**meta, 'classes': meta['classes'][part]}
                of_part = super().compute_metrics([_of(part, *result) for result in results])
                metrics |= {f'{key}_{name}': value for key, value in of_part.items()}
        finally:
            self.dataset_meta = meta
        return metrics


def _of(part: slice, truth: dict[str, Any], found: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Boxes and detections of some classes, which count from 0."""
    boxes = dict(truth)
    for end in ('', '_ignore'):
        labels = truth[f'labels{end}']
        kept = (labels >= part.start) & (labels < part.stop)
        boxes |= {f'labels{end}': labels[kept] - part.start, f'bboxes{end}': truth[f'bboxes{end}'][kept]}
    return boxes, found[part]
