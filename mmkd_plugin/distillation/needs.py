"""What a loss may ask for besides the tapped tensors: labels, sample indices, the epoch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..datasets.indexed import INDEX
from ..networks.detectors import BoxBranch, Region


def labels(data_samples: Any, device: torch.device) -> Tensor:
    """One class index per image, (N,) int64.

    Args:
        data_samples: mmpretrain's data samples, or the (N,) label tensor of a plain model.
        device: Where the labels go.

    Raises:
        ValueError: If there are none, or several for one image.
        TypeError: If they are soft (mixup, cutmix, one-hot scores).
    """
    if isinstance(data_samples, Tensor):
        return data_samples.to(device)
    _check_samples(data_samples, 'labels')
    for sample in data_samples:
        if 'gt_score' in sample:
            raise TypeError(
                'labels are needed, and this batch has soft ones (gt_score: mixup, cutmix or '
                'one-hot): remove train_cfg.augments / batch_augments or to_onehot from the '
                'student, or use KDLoss'
            )
        if 'gt_label' not in sample or sample.gt_label.numel() != 1:
            raise ValueError(
                'labels are needed, one class per image; this batch has an image with '
                + (f'{sample.gt_label.tolist()}' if 'gt_label' in sample else 'no gt_label')
            )
    return torch.cat([sample.gt_label.view(1) for sample in data_samples]).to(device)


def sample_idx(data_samples: Any, device: torch.device) -> Tensor:
    """Each image's index in the whole training data, (N,) int64; -1 for one drawn in place of a refused one.

    Raises:
        ValueError: If the data samples do not carry it.
    """
    _check_samples(data_samples, 'sample_idx')
    indices = [sample.metainfo.get(INDEX) for sample in data_samples]
    if None in indices:
        raise ValueError(
            "sample_idx is needed, and this batch has none: add dict(type='DistillHook') to custom_hooks, which gives "
            "each sample its own (tools/train.py adds it; mmengine's sample_idx repeats under ConcatDataset)"
        )
    return torch.tensor(indices, device=device)


def _check_samples(data_samples: Any, what: str) -> None:
    if not isinstance(data_samples, Sequence) or not data_samples:
        raise ValueError(f'{what} needed, but the batch has data_samples={type(data_samples).__name__}')


#: What `DistillLoss.needs` may name, besides 'epoch'.
PROVIDERS: dict[str, Callable[[Any, torch.device], Tensor]] = {
    'labels': labels,
    'sample_idx': sample_idx,
}


class Context:
    """What the losses of one step may ask for; computed once, and only if somebody asks.

    Args:
        epoch: From 0.
        data_samples: The batch's data samples (or label tensor).
        device: Where tensors go.
        regions: By box branch of a two-stage student, the RoIs that it sampled.
    """

    def __init__(
        self, epoch: int, data_samples: Any, device: torch.device, regions: Mapping[BoxBranch, Region]
    ) -> None:
        self.regions = regions
        self._batch = (data_samples, device)
        self._known: dict[str, Any] = {'epoch': epoch}

    @classmethod
    def example(cls, images: Tensor, regions: Mapping[BoxBranch, Region]) -> 'Context':
        """For a dry run on images that nobody labelled."""
        context = cls(0, None, images.device, regions)
        context._known['labels'] = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        context._known['sample_idx'] = torch.arange(len(images), device=images.device)
        return context

    def get(self, need: str, branch: BoxBranch | None = None) -> Any:
        """One of the needs, a row for each image; for a tap in a box branch, a row for each RoI.

        Raises:
            ValueError: If the batch does not carry it.
            TypeError: If labels are soft.
        """
        if branch is not None and need == 'labels':
            return self.regions[branch].labels
        if need not in self._known:
            self._known[need] = PROVIDERS[need](*self._batch)
        value = self._known[need]
        return value if branch is None or need == 'epoch' else value[self.regions[branch].rois[:, 0].long()]
