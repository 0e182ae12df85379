"""Beginning anew where a phase begins: learning rates, and what the optimizer remembers."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from ..options import check_bool
from .anchor_search import stages_of
from .distill import distillation_of


@HOOKS.register_module()
class PhaseHook(Hook):
    """Restarts schedules of learning rate and momentum whenever a phase begins.

    A phase begins at the epoch at which a loss goes on or off, with each stage of a :class:`Route`, and where the
    student trains as a whole after its new rows alone (``start``). There every learning rate is what it was when the
    run began, and the schedulers of ``param_scheduler`` begin at their first epoch again, so that their numbers count
    from the start of the phase. It is exact in a resumed run, since schedulers keep their state in checkpoints.

    Args:
        schedulers: Restart them.
        optimizer: Forget momentum and other states of the optimizer as well, as methods do that train their stages by
            separate runs.

    Raises:
        ValueError: If an argument is no boolean, or both are False.
        RuntimeError: Before training: if the run is not by epochs, if no loss ever goes on or off, or the
            ``param_scheduler`` is no part of the config.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, schedulers: bool = True, optimizer: bool = False) -> None:
        self.schedulers = check_bool(schedulers, 'PhaseHook: schedulers')
        self.optimizer = check_bool(optimizer, 'PhaseHook: optimizer')
        if not (schedulers or optimizer):
            raise ValueError('PhaseHook: schedulers=False, optimizer=False given, which restarts nothing: drop it')
        self._begins: set[int] = set()

    def before_train(self, runner: Any) -> None:
        """Find out when phases begin."""
        distillation = distillation_of(runner)
        schedules = [] if distillation is None else [s for _, s in distillation.planner.schedules]
        stages = [] if distillation is None else list(stages_of(distillation))
        if (
            not isinstance(runner.train_loop, EpochBasedTrainLoop)
            or any(not s.by_epoch and s.phased for s in schedules)
            or not all(s.by_epoch for s in stages)
        ):
            raise RuntimeError('PhaseHook restarts at epochs, and this run or one of its schedules counts iterations')
        turns = {turn for s in schedules for turn in s.turns}
        turns |= set() if distillation is None else {distillation.planner.alone}
        self._begins = {turn for turn in turns if 0 < turn < runner.max_epochs}
        self._begins |= {turn for s in stages for turn in s.begins(runner.max_epochs)}
        if not self._begins:
            raise RuntimeError(
                'PhaseHook: no loss goes on or off in this run, and no route has several anchors, so that no phase '
                'begins: drop the hook'
            )
        if self.schedulers and not runner.cfg.get('param_scheduler'):
            raise RuntimeError('PhaseHook: schedulers=True needs param_scheduler in the config, and there is none')

    def before_train_epoch(self, runner: Any) -> None:
        """Restart, if a phase begins with this epoch."""
        if runner.epoch not in self._begins:
            return
        wrapper = runner.optim_wrapper
        wrappers = list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        for optimizer in (own.optimizer for own in wrappers):
            if self.optimizer:
                optimizer.state.clear()
            if self.schedulers:
                for group in optimizer.param_groups:
                    group.update({k.removeprefix('initial_'): v for k, v in group.items() if k.startswith('initial_')})
        if self.schedulers:
            runner.param_schedulers = runner.build_param_scheduler(runner.cfg.param_scheduler)
        what = ' and '.join(['schedulers'] * self.schedulers + ['the state of the optimizer'] * self.optimizer)
        runner.logger.info(f'PhaseHook: a phase begins with epoch {runner.epoch}, {what} begin anew')
