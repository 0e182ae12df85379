"""Accuracy of old and of new classes; imported where mmpretrain is there."""

from collections.abc import Sequence
from typing import Any

from mmpretrain.evaluation import Accuracy

from ..options import check_whole
from .split import check_fewer


class OldNewAccuracy(Accuracy):
    """See :func:`mmkd_plugin.metrics.OldNewAccuracy`."""

    def __init__(self, old: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.old = check_whole(old, 'OldNewAccuracy: old', low=1)

    def compute_metrics(self, results: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Over all images, and over those of old and of new classes."""
        check_fewer(self.old, self.dataset_meta, 'OldNewAccuracy')
        metrics = super().compute_metrics(list(results))
        for name, own in (('old', slice(0, self.old)), ('new', slice(self.old, None))):
            part = [result for result in results if (int(result['gt_label']) < self.old) is (name == 'old')]
            if not part:
                continue
            of_part = super().compute_metrics(part)
            metrics |= {name if key == 'top1' else f'{name}_{key}': value for key, value in of_part.items()}
            scores = [result['pred_score'][own] for result in part if 'pred_score' in result]
            if scores:
                found = [own.start + int(score.argmax()) if len(score) else -1 for score in scores]
                right = [label == int(result['gt_label']) for label, result in zip(found, part, strict=True)]
                metrics[f'{name}_within'] = 100 * sum(right) / len(right)
        return metrics
