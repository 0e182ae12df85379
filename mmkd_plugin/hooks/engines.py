"""What is refused where parameters are not the model's own: sharded by FSDP, or kept by DeepSpeed."""

from typing import Any

from mmengine.hooks import EMAHook
from torch.distributed.fsdp import FullyShardedDataParallel

from ..distillation.step import Distillation
from ..optim import AmpBoundedOptimWrapper, BoundedOptimWrapper, LearnerOptimWrappers


def engine_of(model: Any) -> str:
    """'FSDP' or 'DeepSpeed', if a runner's model is wrapped so; else empty."""
    if isinstance(model, FullyShardedDataParallel):
        return 'FSDP'
    return 'DeepSpeed' if 'DeepSpeed' in type(model).__name__ else ''


def check_engine(runner: Any, distillation: Distillation) -> None:
    """See that a run under FSDP or DeepSpeed does what its config says; the hook asks before the first step.

    There a parameter is a piece of a flat one, with a gradient if any other piece has one. So nothing can be left out
    of an update, copied or averaged, or have a gradient of its own.

    Args:
        runner: With its model wrapped.
        distillation: Of the model.

    Raises:
        ValueError: If something of the run needs whole parameters, or its checkpoints would hold pieces.
    """
    if not (engine := engine_of(runner.model)):
        return
    if engine == 'FSDP' and not hasattr(runner, 'strategy'):
        raise ValueError(
            "model_wrapper_cfg=dict(type='MMFullyShardedDataParallel') given: mmengine's Runner would write "
            "checkpoints of one process's pieces of the parameters. Use runner_type='FlexibleRunner' and "
            "strategy=dict(type='ShardedStrategy'), see docs/many_gpus.md"
        )
    if engine == 'FSDP' and not runner.strategy._is_full_state_dict():
        raise ValueError(
            "strategy has state_dict_cfg='local', mmengine's default, whose checkpoints are folders of pieces and no "
            "plain student's: give state_dict_cfg='full', or type='ShardedStrategy', where that is the default"
        )
    planner, wrapper = distillation.planner, runner.optim_wrapper
    idle = [term.name for term in distillation.terms if not term.counts]
    found = {
        'losses that are off at some time (schedule, learners in turn, start with alone)': planner.phased,
        'a task loss that is off while others train': bool(planner.without_task),
        f'losses of weight 0 ({", ".join(idle)})': bool(idle),
        'teachers that learn or are an average of the student': bool(len(distillation.peers) or len(distillation.kept)),
        'an optimizer wrapper that bounds gradients': isinstance(wrapper, BoundedOptimWrapper | AmpBoundedOptimWrapper),
        'an optimizer for each learner': isinstance(wrapper, LearnerOptimWrappers),
        # mmengine would take the norm of each process's pieces; DeepSpeed has its own gradient_clipping
        'clip_grad by a norm': engine == 'FSDP' and getattr(wrapper, 'grad_name', '') == 'grad_norm',
        'EMAHook': any(isinstance(hook, EMAHook) for hook in runner.hooks),
    }
    if refused := [what for what, there in found.items() if there]:
        raise ValueError(
            f'this run has {"; ".join(refused)}, and trains with {engine}, where parameters are pieces of flat ones '
            'that cannot be left out of an update, copied, averaged or measured: drop these, or use DDP'
        )
