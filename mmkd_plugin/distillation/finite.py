"""Ending a run whose losses are not finite: on all processes, and with a word on what is to blame."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .untouched import train_together

#: Steps in a row that may overflow in float16 before the run is ended; a gradient scaler skips each of them.
PATIENCE = 20


class FiniteGuard:
    """Looks at the losses of each step.

    On a CPU at once, before the update; on a GPU in the next step, when they are long computed, so that no step waits
    for the device. Where several processes train, all of them learn of it and end together. Under float16 autocast a
    step that overflows is what gradient scalers are for, so there only :data:`PATIENCE` of them in a row end the run.
    """

    def __init__(self) -> None:
        self._last: tuple[list[str], Tensor, Tensor, Tensor] | None = None
        self._tolerant = False
        self._streak = 0
        self._looked_at_weights = False

    def watch(self, losses: Mapping[str, Any], images: Tensor, student: nn.Module) -> None:
        """Remember this step's values.

        Args:
            losses: What the step gives; entries with ``loss`` in their name are looked at.
            images: (N, C, H, W), what the student saw.
            student: Its weights are looked at in the first step.

        Raises:
            ValueError: In the first step: if the student's weights are not finite.
            FloatingPointError: On a CPU, if a loss is not finite.
        """
        if not self._looked_at_weights:
            self._looked_at_weights = True
            _check_weights(student)
        values = {n: v if isinstance(v, (list, tuple)) else [v] for n, v in losses.items() if 'loss' in n}
        sums = {n: torch.stack([t.detach().float().sum() for t in v]).sum() for n, v in values.items() if v}
        if not sums:
            return
        stacked = torch.stack(list(sums.values()))
        broken = stacked.isfinite().all().logical_not().float()
        if train_together() and torch.is_grad_enabled():  # one process alone may look at losses without training
            torch.distributed.all_reduce(broken, torch.distributed.ReduceOp.MAX)
        kind = stacked.device.type
        self._tolerant = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
        self._last = list(sums), stacked, broken, images.isfinite().all() if kind != 'cpu' else images
        if kind == 'cpu':
            self.check()

    def check(self) -> None:
        """Look at the last step.

        Raises:
            FloatingPointError: If a loss was not finite, here or in another process; the message names it.
        """
        last, self._last = self._last, None
        if last is None or not last[2]:
            self._streak = 0 if last is not None else self._streak
            return
        names, values, _, images = last
        sums = dict(zip(names, values.tolist(), strict=True))
        bad = {name: value for name, value in sums.items() if not torch.tensor(value).isfinite()}
        text = (
            f'not finite: {bad}; all losses of the step: {sums}'
            if bad
            else 'a loss of another process is not finite; that process names it'
        )
        self._streak += 1
        if self._tolerant and self._streak < PATIENCE:
            if self._streak == 1:
                print_log(f'{text}. In float16 the gradient scaler skips such a step', 'current', logging.WARNING)
            return
        if not images.isfinite().all():
            raise FloatingPointError(
                f'{text}. The images of this batch are not finite, so the data or its pipeline is at fault: look at '
                'the files, and at the mean and std of data_preprocessor'
            )
        raise FloatingPointError(
            f'{text}. Lower the learning rate or that loss_weight, or give the loss schedule=dict(warmup=...)'
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> 'FiniteGuard':
        return FiniteGuard()

    def __reduce__(self) -> Any:
        return FiniteGuard, ()


def _check_weights(student: nn.Module) -> None:
    bad = [name for name, p in student.named_parameters() if p.is_floating_point() and not p.isfinite().all()]
    if bad:
        raise ValueError(
            f'{len(bad)} weights of the student are not finite before the first step: {", ".join(bad[:5])}. '
            'Look at the checkpoint that it starts from (load_from, init_cfg) and at its initialisation'
        )
