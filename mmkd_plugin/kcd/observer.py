"""Values of samples from the logits that training computes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.indexed import INDEX
from ..facts import Batch
from ..networks import Tap, Taps, network_of
from .valuation import VALUES, needs_of


class Observer:
    """Reads the student's logits in each step, and what else a value names, and keeps one value for each image.

    Args:
        model: The distilled student.
        logits: Its classifier; found out when None.
        value: Name of a value function.

    Raises:
        ValueError: If the classifier is not there or not found, or if this is known to be none; if there is no
            teacher's class scores that the value needs.
    """

    def __init__(self, model: Any, logits: str | None, value: str) -> None:
        self.tap = Tap.parse(logits or find_logits(model))
        self.model = model
        student = network_of(model)
        self.branch = student.rows(self.tap)
        student.check_logits(self.tap, 'KCDHook')
        self.value = VALUES[value]
        self.needs = needs_of(self.value)
        if 'labels' in self.needs:
            student.check_labels(self.tap, f"KCDHook: value='{value}'")
        self.distill = model.distill
        self.distill.observe[self.tap] = self.branch
        #: The teacher that the value compares with, by name, and where it is read.
        self.teacher: tuple[str, Tap] | None = None
        if 'teacher' in self.needs:
            self.teacher = name, tap = find_teacher(model, self.tap, value)
            self.distill.observe_taught[name] = {tap: self.branch}
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
        samples = data_batch['data_samples']
        self._keep(samples, logits, self._valued(logits, samples, self.distill.observed_taught))

    def look(self, data_batch: Any) -> None:
        """The values of images that the student is not trained on, by a pass of its own in the mode that it is in."""
        made = self.model.data_preprocessor(data_batch, False)
        images, samples = made['inputs'], made['data_samples']
        recorded = Taps(self.model, [self.tap])
        with recorded.recording():
            network_of(self.model).run(images, {self.tap.path})
        taught = {}
        if self.teacher:
            name, tap = self.teacher
            batch = Batch(images, samples, self.distill.sizes.of(images, samples))
            taught[name] = self.distill.sources[name].read(batch, {tap: None})
        logits = recorded.values()[self.tap]
        self._keep(samples, logits, self._valued(logits, samples, taught))

    def _valued(self, logits: Tensor, samples: Any, taught: Mapping[str, Mapping[Tap, Tensor]]) -> Tensor:
        given = {}
        if 'labels' in self.needs:
            regions = self.distill.regions
            given['labels'] = regions[self.branch].labels if self.branch else Batch(logits, samples).get('labels')
        if self.teacher:
            name, tap = self.teacher
            given['teacher'] = taught[name][tap]
        return self.value(logits, **given)

    def _keep(self, samples: Sequence[Any], logits: Tensor, values: Tensor) -> None:
        indices = np.array([sample.metainfo.get(INDEX, -1) for sample in samples], dtype=np.int32)
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
        """Indices (K,) and values (K,) that were read since the last time, and forget them."""
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


def find_teacher(model: nn.Module, logits: Tap, value: str) -> tuple[str, Tap]:
    """Where a trained teacher's class scores are read that a loss compares with the student's.

    Args:
        model: The distilled student.
        logits: Where its class scores are read.
        value: Name of the value that asks.

    Returns:
        The teacher's name, and the tap.

    Raises:
        ValueError: If no loss reads them.
    """
    distill: Any = model.distill
    for term in distill.terms:
        taps = term.taps('student')
        if term.learner != 'student' or not term.compares_logits or term.through or logits not in taps:
            continue
        for name in term.sources:
            if name in distill.teachers and len(term.taps(name)) == len(taps):
                return name, term.taps(name)[taps.index(logits)]
    raise ValueError(
        f"KCDHook: value='{value}' compares with the class scores of a trained teacher, and no loss compares those "
        f"with '{logits}' of the student: add one that does, such as dict(type='KDLoss', on='{logits}'), or take "
        'another value'
    )
