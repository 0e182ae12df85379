"""KCD, knowledge condensation distillation: valuing, ranking and condensing the training data while it is used."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop

from ..datasets.condensed import CondensedDataset, CondensedSampler, condensed_loader
from ..valuation import VALUES, ValueTable, condense, keep_counts, rank
from .kcd_observer import Observer, refuse_mixtures
from .kcd_pace import Pace
from .kcd_recipes import Mixer, RecipeBook
from .kcd_report import Report

_MIXING = (None, 'convex', 'additive')
_RANK_OVER = ('all', 'kept')


@HOOKS.register_module()
class KCDHook(Hook):
    """Trains on the part of the data that is still worth distilling, for any distillation config.

    C. Li et al., "Knowledge Condensation Distillation", ECCV 2022, arXiv 2207.05409. The value of a
    sample is the running mean of the student's prediction entropy, from the logits that training
    computes anyway. After every ``interval`` epochs all samples are ranked by value times
    (times seen)^alpha (equations 7, 12, 13), fewer are kept, and the lowest ranked kept ones are mixed
    with the best dropped ones (14, 15).

    Deviations: rounds are spread so that the last one is still used (the official code condenses
    once more after training has ended; ``official_schedule=True``); images are mixed fresh from the
    originals (officially mixed images are mixed again; ``cumulative=True``). For detectors, which
    the paper does not treat, the value of an image is the mean entropy over its sampled RoIs, and a
    mixed image keeps its own boxes.

    Parameter schedules by epoch stay as they are. Those by iteration keep their shape over the
    epochs: they are stepped faster as epochs shrink, so that an epoch advances them by as many
    iterations as a full one. A loss's own ``schedule`` with ``by_epoch=False`` counts real
    iterations. With fresh mixing the images that an earlier round mixed are whole again.

    Args:
        interval: Epochs between two rounds.
        final_ratio: Part of the data that is kept after the last round, in (0, 1].
        alpha: Power of the number of times that a sample was trained on.
        epsilon_max: Mixing weight of the worst kept sample, in [0, 1].
        keep_schedule: ``linear`` (official), ``geometric``, or the ratios kept after each round.
        rank_over: ``all`` samples (official; dropped ones can return) or those still ``kept``.
        mixing: ``convex`` (official), ``additive`` (paper) or None.
        cumulative: Mix mixed images further; loading one then costs more images with every round.
        begin: Epochs before values are recorded.
        value: Name of a function in ``mmkd_plugin.valuation.VALUES``; ``random`` is the control.
        official_schedule: Count a round after the last epoch.
        logits: The student's classifier, such as ``head.fc``; found out when None.
        table: Write a row for each sample after each round.

    Raises:
        ValueError: If an option is not understood; before training, if no round fits into it.
        RuntimeError: Before training: if the model is not distilled or the loop not epoch-based.
        TypeError: Before training: if data set or sampler are of a kind that cannot be condensed.
        FloatingPointError: If a value is not finite; the message names samples.
    """

    # before CheckpointHook, whose file holds the state
    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 40,
        final_ratio: float = 0.7,
        alpha: float = 0.03,
        epsilon_max: float = 0.3,
        keep_schedule: str | Sequence[float] = 'linear',
        rank_over: str = 'all',
        mixing: str | None = 'convex',
        cumulative: bool = False,
        begin: int = 0,
        value: str = 'entropy',
        official_schedule: bool = False,
        logits: str | None = None,
        table: bool = True,
    ) -> None:
        if not all(isinstance(n, int) for n in (interval, begin)) or interval < 1 or begin < 0:
            raise ValueError(
                f'KCDHook: interval={interval!r}, begin={begin!r} given, expected whole numbers, interval >= 1 and '
                'begin >= 0'
            )
        for name, given, known in (
            ('mixing', mixing, _MIXING),
            ('rank_over', rank_over, _RANK_OVER),
            ('value', value, tuple(VALUES)),
        ):
            if given not in known:
                raise ValueError(f'KCDHook: {name}={given!r} given, expected one of {", ".join(map(repr, known))}')
        if not 0 <= epsilon_max <= 1 or not 0 <= alpha < math.inf:
            raise ValueError(
                f'KCDHook: epsilon_max={epsilon_max}, alpha={alpha} given, expected 0 <= epsilon_max <= 1 and '
                'alpha >= 0'
            )
        self.interval, self.begin, self.official_schedule = interval, begin, official_schedule
        self.final_ratio, self.keep_schedule, self.rank_over = final_ratio, keep_schedule, rank_over
        self.alpha, self.epsilon_max, self.mixing, self.cumulative = alpha, epsilon_max, mixing, cumulative
        self.value, self.logits, self.write_table = value, logits, table
        self.active = False
        self.loader: Any = None
        self._loaded: Any = None

    def before_run(self, runner: Any) -> None:
        """Put the condensed data set and sampler around the training data; plan the rounds."""
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop) or (self.active and loop.dataloader is self.loader):  # a test
            return
        if not isinstance(loop, EpochBasedTrainLoop):
            raise RuntimeError(
                f'KCDHook: the training loop is a {type(loop).__name__}, expected EpochBasedTrainLoop '
                '(train_cfg=dict(by_epoch=True, max_epochs=...)): condensing shortens epochs'
            )
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not hasattr(model, 'distill'):
            raise RuntimeError(
                f'KCDHook: the model is a {type(model).__name__} without a teacher; use '
                "model=dict(type='Distilled', ...)"
            )
        self.observer = Observer(model, self.logits, VALUES[self.value])
        loader = loop.dataloader
        if isinstance(loader.dataset, CondensedDataset):
            raise RuntimeError('KCDHook stands in custom_hooks twice; expected once')
        refuse_mixtures(model, loader.dataset)
        dataset = CondensedDataset(loader.dataset, Mixer(self.mixing) if self.mixing else None)
        self.sampler = CondensedSampler(dataset, getattr(loader.batch_sampler, 'sampler', loader.sampler))
        self.loader = loop.dataloader = condensed_loader(loader, dataset, self.sampler)
        self.size = len(dataset)
        self.table = ValueTable(self.size)
        self.kept = np.arange(self.size)
        self.recipes = RecipeBook(self.cumulative)
        self.round = 0
        self.rounds = self._plan(loop.max_epochs)
        self.counts = keep_counts(self.size, len(self.rounds), self.final_ratio, self.keep_schedule)
        self.pace = Pace(runner, self.sampler, self.rounds, self.counts)
        self.report = Report(runner, dataset, self.write_table)
        self.active = True
        if loop.epoch:  # resumed by hand, before this
            self._restore()

    def before_train(self, runner: Any) -> None:
        """Remove tables that a longer run left in the folder."""
        if is_main_process():
            self.report.forget(self.round)

    def _plan(self, epochs: int) -> list[int]:
        """After how many epochs each round comes."""
        last = epochs if self.official_schedule else epochs - 1
        rounds = list(range(self.begin + self.interval, last + 1, self.interval))
        if not rounds:
            raise ValueError(
                f'KCDHook: interval={self.interval} and begin={self.begin} leave no round in {epochs} epochs; expected '
                'begin + interval < max_epochs'
            )
        return rounds

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Remember the values of this batch; keep schedules by iteration in step."""
        if runner.epoch >= self.begin:
            self.observer.read(data_batch)
        self.pace.after_iteration(batch_idx)

    def after_train_epoch(self, runner: Any) -> None:
        """Bring the processes' values together; condense where a round is due."""
        indices, values = self._gather()
        if len(indices):
            self.table.update(indices, values)
        if self.round < len(self.rounds) and runner.epoch + 1 == self.rounds[self.round]:
            self._condense(runner)

    def _gather(self) -> tuple[np.ndarray, np.ndarray]:
        """What all processes saw in this epoch; an entry that several saw, as padding, counts once."""
        parts = all_gather_object(self.observer.take())
        indices, values = (np.concatenate([part[i] for part in parts]) for i in range(2))
        indices, first = np.unique(indices, return_index=True)
        return indices, values[first]

    def _condense(self, runner: Any) -> None:
        keep, previous = self.counts[self.round], len(self.kept)
        if not self.table.count.any():
            raise RuntimeError(
                f"KCDHook: no sample has a value after {runner.epoch + 1} epochs; '{self.observer.tap}' gave none"
            )
        scores = self.table.scores(self.alpha)
        if self.rank_over == 'all':
            order = rank(scores)
        else:
            order = self.kept[rank(scores[self.kept])]
        result = condense(order, keep, previous, self.epsilon_max if self.mixing else 0.0)
        self.kept = np.sort(np.concatenate([result.high, result.low]))
        if keep < previous:  # otherwise nothing is left to mix anew, and what is mixed stays
            self.recipes.turn(result, self.kept, forget_dropped=self.rank_over == 'kept')
        self._show()
        self.round += 1
        if is_main_process():
            self.report.write(self, result, runner.epoch + 1)

    def _show(self) -> None:
        self.sampler.keep(self.kept, self.recipes)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Values, counts, partition."""
        if self.active:
            checkpoint['kcd'] = {
                'table': self.table.state_dict(),
                'kept': torch.from_numpy(self.kept),
                'recipes': self.recipes.state_dict(),
                'rounds': self.rounds[: self.round],
                'counts': self.counts[: self.round],
                'saved': self.pace.saved,
            }

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was, on any number of processes."""
        self._loaded = checkpoint.get('kcd')
        if self.active and runner._resume:
            self._restore()

    def _restore(self) -> None:
        state = self._loaded
        if state is None:
            raise ValueError(
                'KCDHook: the checkpoint to resume from was written without KCDHook and holds no values. Resume '
                'without the hook, or start from its weights with load_from'
            )
        self.table.load_state_dict(state['table'])
        done = len(state['rounds'])
        if (state['rounds'], state['counts']) != (self.rounds[:done], self.counts[:done]):
            raise ValueError(
                f'KCDHook: the checkpoint comes from rounds after the epochs {state["rounds"]}, which kept '
                f'{state["counts"]}; this run would have had {self.rounds[:done]} and {self.counts[:done]}. Resume '
                'with the same interval, begin, final_ratio, keep_schedule and max_epochs, or say keep_schedule=[...]'
            )
        self.kept = state['kept'].cpu().numpy().copy()
        self.recipes.load_state_dict(state['recipes'])
        self.round, self.pace.saved = done, state['saved']
        self._loaded = None
        self._show()
