"""Deep mutual learning as the paper does it: learners are updated one after the other, from the same batch."""

import copy
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS

from ..randomness import keep_random_state
from ..teachers import Average
from .distill import distillation_of


@HOOKS.register_module()
class InTurnHook(Hook):
    """Lets the student and its peers learn in turn, each from what the others are after their own updates.

    Algorithm 1 of Deep Mutual Learning (arXiv 1706.00384): for each batch, the first learner is updated, then everybody
    predicts anew, then the second is updated, and so on; the student first, then the peers in the order of
    ``teachers``. Each turn is a whole training step of mmengine's, with the same images, the same augmentation by the
    data preprocessor and the same random numbers, in which one learner's losses are on. The others teach: they predict
    as in training, without gradient, and stay bit for bit as they are, running statistics included (where the paper
    says nothing of these). Without this hook all learn together, from one pass of each.

    Exits of the student have its turn. With K learners a batch costs K passes of each instead of one, K(K-1) more, and
    no more backward passes. A learner that nothing teaches at a time has no turn. The log has the losses of all turns,
    and its iterations are batches.

    Raises:
        RuntimeError: Before training, if there are no peers, if gradients are accumulated, since an update would then
            mix turns, or if a teacher averages the student's updates.
    """

    priority = 'VERY_LOW'  # when everybody else is ready for the step, and the wait for data has been timed

    def before_train(self, runner: Any) -> None:
        """See that turns can be taken."""
        distillation = distillation_of(runner)
        sources = {} if distillation is None else distillation.sources
        if not any(source.learns and source.apart for source in sources.values()):
            raise RuntimeError(
                "InTurnHook: there is nobody to take turns with: give teachers=dict(peer=dict(type='Peer', ...)), or "
                'drop the hook'
            )
        if averages := [name for name, source in sources.items() if isinstance(source, Average)]:
            raise RuntimeError(
                f'InTurnHook: {averages[0]} (Average) takes over every update of the optimizer, of which there are '
                'several for each batch: drop one of them'
            )
        wrapper = runner.optim_wrapper
        wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        if (counts := max(own._accumulative_counts for own in wrappers)) > 1:
            raise RuntimeError(
                f'InTurnHook: optim_wrapper has accumulative_counts={counts}, expected 1: each turn ends with an '
                'update, which the next one builds on. Take larger batches, or drop the hook'
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """All turns but the last, which is the loop's own step."""
        turns = distillation_of(runner).planner.turns
        turns.begin()
        learners = distillation_of(runner).planner.has_turn()
        for name in learners[:-1]:
            turns.learner = name
            with keep_random_state():
                runner.model.train_step(copy.deepcopy(data_batch), optim_wrapper=runner.optim_wrapper)
        turns.learner = learners[-1] if learners else None

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """No turn until the next batch."""
        distillation_of(runner).planner.turns.begin()
