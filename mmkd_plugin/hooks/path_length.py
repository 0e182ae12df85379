"""The path that a layer's weights take in training, and the checkpoints that `tools/explain.py` looks at."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor

from ..files.atomic import save_checkpoint
from ..files.checkpoint import state_dict_of
from ..networks.weights import PATH_LENGTH, explained_in, flat, weights_at
from ..options import check_whole

#: Checkpoints that the paper analyses, in epochs.
EPOCHS = (0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 70, 90, 110, 130, 150, 170, 190, 240, 280, 320, 360, 400)

_CACHED = 2**16  # numbers of a part


class _Path:
    """Of one layer: the sum of ||w_k - w_{k-1}|| over optimizer steps; nothing of it waits for the device.

    On a CPU weights are read in parts that stay in its cache, which takes half the time.
    """

    def __init__(self, weights: list[Any], length: float = 0.0, start: float | None = None) -> None:
        self._weights = weights
        self._look()
        self._before = [torch.cat(parts) for parts in self._parts]
        self._sum = torch.full((), length, dtype=torch.float64, device=weights[0].device)
        self._start = float(flat(weights).norm()) if start is None else start

    def _look(self) -> None:
        """Find the weights' memory; small ones are read together, because each operation costs as much."""
        self._addresses = [w.data_ptr() for w in self._weights]
        pieces = [_in_memory(w) for w in self._weights]
        size = _CACHED if pieces[0].device.type == 'cpu' else max(map(len, pieces))
        small = sum(map(len, pieces)) <= size
        self._parts = [pieces] if small else [[part] for piece in pieces for part in torch.split(piece, size)]

    def step(self) -> None:
        if self._addresses != [w.data_ptr() for w in self._weights]:  # somebody has put other tensors there
            self._look()
        squares = []
        for parts, before in zip(self._parts, self._before, strict=True):
            now = torch.cat(parts) if len(parts) > 1 else parts[0]
            before.sub_(now)
            squares.append(torch.dot(before, before))
            before.copy_(now)
        self._sum += (torch.stack(squares).sum() if len(squares) > 1 else squares[0]).sqrt()

    def state(self) -> dict[str, float]:
        return {'length': float(self._sum), 'start': self._start}


def _in_memory(weight: Tensor) -> Tensor:
    """All numbers of a weight as they lie in memory, (n,), not copied."""
    order = sorted(range(weight.ndim), key=weight.stride, reverse=True)
    return weight.detach().permute(order).view(-1)


@HOOKS.register_module()
class PathLengthHook(Hook):
    """Sums how far the weights of some layers go, and keeps checkpoints for :mod:`mmkd_plugin.analysis`.

    The path is the sum of ``||w_k - w_{k-1}||`` over all optimizer steps; divided by ``||w_0||`` it is what Cheng et
    al. (CVPR 2020, arXiv 2003.03622, equation 7) measure learning speed by. (Their formula takes the steps between
    epochs, their code those of the optimizer, as here.) It stands in every checkpoint of the run, so that a resumed
    run has the same, and in ``WORK_DIR/explain/epoch_N.pth`` (``iter_N.pth`` of runs by iteration) beside the plain
    student's weights. Of averaged models (EMAHook) the trained weights are kept there, and not their average.

    Args:
        layers: Paths of modules, such as ``['backbone.layer4']``; of each the weights of all convolutions and linear
            layers count, without biases and norms.
        at: Epochs (iterations, where the run counts those) whose end is kept, 0 for the start; the last is always
            kept. Default: the paper's, 0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 70 ... as far as the run goes.

    Raises:
        ValueError: If an argument is of another kind; before training: if a layer is no module or has no weights.
        RuntimeError: If a run is resumed that was begun without this hook, or with other layers.
    """

    priority = 'NORMAL'

    def __init__(self, layers: Sequence[str], at: Sequence[int] | None = None) -> None:
        words = isinstance(layers, (list, tuple)) and all(isinstance(path, str) and path for path in layers)
        if not words or not layers:
            raise ValueError(
                f"PathLengthHook: layers={layers!r} given, expected paths of modules, as in ['backbone.layer4']"
            )
        if at is not None and not isinstance(at, (list, tuple)):
            raise ValueError(f'PathLengthHook: at={at!r} given, expected whole numbers such as [0, 10, 40]')
        self.layers = list(dict.fromkeys(layers))
        self.at = None if at is None else sorted({check_whole(n, 'PathLengthHook: at') for n in at})
        self._paths: dict[str, _Path] = {}
        self._resumed: dict[str, dict[str, float]] | None = None
        self._by_epoch = True

    def before_train(self, runner: Any) -> None:
        """Find the layers, and keep the start."""
        self._by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        model = _unwrapped(runner)
        weights = {path: weights_at(model, path, 'model') for path in self.layers}
        if runner.iter and self._resumed is None:
            raise RuntimeError(
                f'PathLengthHook: the run goes on at iteration {runner.iter} from a checkpoint without path length, '
                'which would begin in the middle: train it anew, or drop the hook'
            )
        before: dict[str, Any] = self._resumed or {path: {} for path in self.layers}
        if set(before) != set(self.layers):
            raise RuntimeError(
                f'PathLengthHook: layers={self.layers} given, and the checkpoint that is resumed has the paths of '
                f'{sorted(before)}: name those, or train anew'
            )
        self._paths = {path: _Path(weights[path], **before[path]) for path in self.layers}
        if runner.iter == 0 and (self.at is None or 0 in self.at):
            self._keep(runner, 0, runner.max_epochs, 0)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Add one step; of accumulated gradients most are zero."""
        for path in self._paths.values():
            path.step()
        if not self._by_epoch:
            self._keep(runner, runner.iter + 1, runner.max_iters, runner.iter + 1)

    def after_train_epoch(self, runner: Any) -> None:
        """Keep the end of an epoch, if it is one of those."""
        if self._by_epoch:
            self._keep(runner, runner.epoch + 1, runner.max_epochs, runner.iter)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Leave the paths there for whoever resumes."""
        checkpoint[PATH_LENGTH] = self._state()

    def after_load_checkpoint(self, runner: Any, checkpoint: Mapping[str, Any]) -> None:
        """Take them over, if this is to resume."""
        if runner._resume:
            self._resumed = checkpoint.get(PATH_LENGTH)

    def _state(self) -> dict[str, dict[str, float]]:
        return {name: path.state() for name, path in self._paths.items()}

    def _keep(self, runner: Any, number: int, last: int, iteration: int) -> None:
        if number not in (EPOCHS if self.at is None else self.at) and number != last:
            return
        if not is_main_process():
            return
        state = state_dict_of({'state_dict': {k: v.cpu() for k, v in _unwrapped(runner).state_dict().items()}})
        name = f'{"epoch" if self._by_epoch else "iter"}_{number}.pth'
        meta = {'epoch': number if self._by_epoch else runner.epoch, 'iter': iteration}
        save_checkpoint(
            {'state_dict': state, 'meta': meta, PATH_LENGTH: self._state()}, explained_in(runner.work_dir) / name
        )


def _unwrapped(runner: Any) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
