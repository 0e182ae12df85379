"""Values of samples from the logits that training computes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.indexed import INDEX
from ..networks import Tap, network_of


class Observer:
    """Reads the student's logits in each step and keeps one value for each image.

    Args:
        model: The distilled student.
        logits: Its classifier; found out when None.
        value: (N, C) logits to (N,).

    Raises:
        ValueError: If the classifier is not there or not found, or if this is known to be none.
    """

    def __init__(self, model: Any, logits: str | None, value: Callable[[Tensor], Tensor]) -> None:
        self.tap = Tap.parse(logits or find_logits(model))
        student = network_of(model)
        self.branch = student.rows(self.tap)
        student.check_logits(self.tap, 'KCDHook')
        self.value = value
        self.distill = model.distill
        self.distill.observe[self.tap] = self.branch
        self._indices: list[np.ndarray] = []
        self._values: list[Tensor] = []

    def read(self, data_batch: Any) -> None:
        """The values of one training step; they stay on the device until the epoch ends."""
        logits = self.distill.observed.get(self.tap)
        if logits is None:
            if self.branch is None:
                raise RuntimeError(
                    f"KCDHook: the student did not run '{self.tap}' in this step; say logits='its classifier'"
                )
            return  # a cascade that ran out of RoIs
        indices = np.array([sample.metainfo.get(INDEX, -1) for sample in data_batch['data_samples']], dtype=np.int32)
        values = self.value(logits)
        if self.branch is not None:
            values = _mean_over_rois(values, self.distill.regions[self.branch].rois, len(indices))
        if values.shape != (len(indices),):
            raise ValueError(
                f"KCDHook: '{self.tap}' gives {tuple(logits.shape)} for {len(indices)} images, expected a row of "
                "logits for each: say logits='the student's classifier'"
            )
        self._indices.append(indices)
        self._values.append(values.float())

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices (K,) and values (K,) of this epoch, and forget them."""
        indices = np.concatenate([*self._indices, np.zeros(0, np.int32)])
        values = torch.cat(self._values).cpu().numpy() if self._values else np.zeros(0, np.float32)
        self._indices, self._values = [], []
        valued = indices >= 0  # not an image that the pipeline drew instead of one it refused
        if self.branch is not None:
            valued &= ~np.isinf(values)  # without RoIs
        return indices[valued], values[valued]


def _mean_over_rois(values: Tensor, rois: Tensor, images: int) -> Tensor:
    """(R,) to (images,); infinite for an image without RoIs."""
    image = rois[:, 0].long()
    total = values.new_zeros(images).index_add_(0, image, values)
    count = values.new_zeros(images).index_add_(0, image, torch.ones_like(values))
    return torch.where(count > 0, total / count.clamp_min(1), torch.inf)


def find_logits(model: nn.Module) -> str:
    """Where a student's logits are read: its last box head, what KD or DKD read, or ``head.fc``.

    Raises:
        ValueError: If none of these is there.
    """
    network = network_of(model)
    if network.branches():
        return str(network.classifier())
    for term in model.distill.terms:  # type: ignore[union-attr]
        if term.kind in ('KDLoss', 'DKDLoss') and term.learner == 'student':
            return str(term.taps('student')[-1])
    if tap := network.classifier():
        return str(tap)
    raise ValueError(
        f'KCDHook: no classifier found in {type(model).__name__}; say '
        "logits='its path' (tools/list_modules.py lists them)"
    )
