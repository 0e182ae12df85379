"""An optimizer of its own for each learner: SGD for the student, and something else for its peer."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import Tensor, nn

from ..options import check_mapping

#: What a config gives as ``constructor``.
CONSTRUCTOR = 'LearnerOptimWrapperConstructor'
_EXAMPLE = f"dict(constructor='{CONSTRUCTOR}', student=dict(optimizer=dict(type='SGD', ...)), peer=dict(...))"


class LearnerOptimWrappers(OptimWrapperDict):
    """Optimizer wrappers by learner, used as one: a single backward pass of the total, then each makes its step.

    Since no loss of one learner reaches another, each steps on the gradient of its own losses. Gradient clipping is
    each wrapper's own. They accumulate over the same number of steps.
    """

    @property
    def _first(self) -> OptimWrapper:
        """Whose counting is that of all."""
        return next(iter(self.values()))

    @property
    def _accumulative_counts(self) -> int:
        counts: int = self._first._accumulative_counts
        return counts

    def update_params(
        self, loss: Tensor, step_kwargs: dict[str, Any] | None = None, zero_kwargs: dict[str, Any] | None = None
    ) -> None:
        """As ``OptimWrapper``'s.

        Args:
            loss: The total of all learners' losses.
            step_kwargs: For the steps of all.
            zero_kwargs: For ``zero_grad`` of all.
        """
        self.backward(self._first.scale_loss(loss))
        if self._first.should_update():
            self.step(**(step_kwargs or {}))
            self.zero_grad(**(zero_kwargs or {}))

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Once for all."""
        self._first.backward(loss, **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Of each."""
        for wrapper in self.values():
            wrapper.step(**kwargs)

    def zero_grad(self, **kwargs: Any) -> None:
        """Of each."""
        for wrapper in self.values():
            wrapper.zero_grad(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """As ``OptimWrapper``'s: no exchange of gradients that are only accumulated."""
        with self._first.optim_context(model):
            yield

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """As ``OptimWrapper``'s."""
        self._first.initialize_count_status(model, init_counts, max_counts)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name=CONSTRUCTOR)
class LearnerOptimWrapperConstructor:
    """Builds an optimizer wrapper for the student and one for each peer.

    ``optim_wrapper=dict(constructor='LearnerOptimWrapperConstructor', student=dict(optimizer=dict(...)),
    peer=dict(optimizer=dict(...)))``: by learner what ``optim_wrapper`` is for one model, with ``clip_grad``,
    ``paramwise_cfg`` and a ``constructor`` of its own, if wanted. Parameters have the names that they have in the
    learner's plain model; learnable parts of a loss, ``distill.losses.…``, are with the learner that it teaches, and
    exits with the student. ``accumulative_counts`` stands beside the learners. ``param_scheduler`` is one for all or,
    as with every ``OptimWrapperDict``, a dictionary by learner. The log has ``student.lr`` and ``peer.lr``.

    Mixed precision needs one gradient scaler for the one backward pass: there, take one optimizer, with
    ``paramwise_cfg=dict(custom_keys={'distill.peers.peer': dict(lr_mult=0.5)})``.

    Args:
        optim_wrapper_cfg: That dictionary, without its ``constructor``.
        paramwise_cfg: None; each learner has its own.

    Raises:
        ValueError: If a learner is missing or unknown, or something stands where it cannot.
        TypeError: When called, if the model is not distilled.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Any = None) -> None:
        if paramwise_cfg is not None:
            raise ValueError(f'paramwise_cfg beside the learners given, expected it in one of them: {_EXAMPLE}')
        cfg = check_mapping(optim_wrapper_cfg, 'optim_wrapper', _EXAMPLE)
        if (kind := cfg.pop('type', None)) not in (None, 'OptimWrapper', OptimWrapper):
            _refuse_type(kind, 'optim_wrapper')
        if 'optimizer' in cfg:
            raise ValueError(f'optim_wrapper has an optimizer beside those of the learners, expected {_EXAMPLE}')
        self.counts = cfg.pop('accumulative_counts', 1)
        self.learners = {name: check_mapping(own, f"optim_wrapper['{name}']", _EXAMPLE) for name, own in cfg.items()}
        for name, own in self.learners.items():
            if 'accumulative_counts' in own:
                raise ValueError(f"optim_wrapper['{name}'] has accumulative_counts, expected it beside the learners")
            if own.get('type', 'OptimWrapper') not in ('OptimWrapper', OptimWrapper):
                _refuse_type(own['type'], f"optim_wrapper['{name}']")

    def __call__(self, model: nn.Module) -> LearnerOptimWrappers:
        """The wrappers, the student's first."""
        student: Any = model.module if is_model_wrapper(model) else model
        distillation: Any = getattr(student, 'distill', None)
        if distillation is None:
            raise TypeError(f'{CONSTRUCTOR}: the model is a {type(student).__name__} without peers, expected Distilled')
        apart = {name: net for name, net in distillation.peers.items() if distillation.sources[name].apart}
        learners = {'student': student, **apart}
        if set(learners) != set(self.learners):
            raise ValueError(
                f'optim_wrapper has settings for {sorted(self.learners)}, expected some for each of {list(learners)}: '
                f'{_EXAMPLE}'
            )
        wrappers = {}
        for name, network in learners.items():
            losses = {t.name: t for t in distillation.terms if distillation.planner.turn_of(t.learner) == name}
            exits = nn.ModuleDict({key: net for key, net in distillation.peers.items() if key not in apart})
            parts = {**distillation._modules, 'peers': exits} if name == 'student' else {}
            beside = nn.ModuleDict({**parts, 'losses': nn.ModuleDict(losses)})
            # a shallow copy with other children: the learner, what is trained with it, and nobody else
            view = copy.copy(network)
            view._modules = {**network._modules, 'distill': beside}
            wrapper = build_optim_wrapper(view, {**self.learners[name], 'accumulative_counts': self.counts})
            if name != 'student' and wrapper.clip_grad_kwargs:  # else one name for several values in the log
                wrapper.grad_name = f'{name}.{wrapper.grad_name}'
            wrappers[name] = wrapper
        return LearnerOptimWrappers(**wrappers)


def _refuse_type(kind: Any, where: str) -> None:
    raise ValueError(
        f'{where} has type={kind!r}, expected OptimWrapper: learners with optimizers of their own share one backward '
        'pass. For mixed precision (--amp) or BoundedOptimWrapper take one optimizer, with '
        "paramwise_cfg=dict(custom_keys={'distill.peers.peer': dict(lr_mult=...)})"
    )


def of_learner(cfg: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An ``optim_wrapper`` for a learner alone, as a plain model."""
    if cfg.get('constructor') not in (CONSTRUCTOR, LearnerOptimWrapperConstructor):
        return dict(cfg)
    return {**cfg[name], 'accumulative_counts': cfg.get('accumulative_counts', 1)}
