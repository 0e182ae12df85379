"""KCD, knowledge condensation distillation: valuing, ranking and condensing the training data while it is used."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop
from torch.utils.data import BatchSampler, DataLoader

from ..datasets.fingerprint import fingerprint
from ..datasets.indexed import IndexedDataset, rewrapped_loader
from ..options import check_bool, check_number, check_whole
from .dataset import CondensedDataset, CondensedSampler
from .dropped import Dropped, gathered
from .fitness import check_images_valued, check_run
from .mixtures import Mixer, RecipeBook
from .observer import Observer
from .options import check_choice, check_dropped_value, check_path, check_schedule
from .pace import Pace
from .refuse_mixed import refuse_mixtures, refuse_planned_mixtures
from .report import Report
from .resume_check import check_data, check_next_round, check_options, check_rounds
from .valuation import RANDOM, TABLES, ValueTable, condense, keep_counts, random_scores, rank


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
    iterations. With fresh mixing the images that an earlier round mixed are whole again. Where a shorter
    epoch would end with a batch of a single image, which the full one did not, that image is left out of it.

    A checkpoint tells the data, the options and the rounds that its values belong to; resuming with others
    is an error. That reads through all annotations once, at the first checkpoint and when resuming.

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
        value: Name of a function in ``mmkd_plugin.kcd.valuation.VALUES``: ``entropy`` (official), ``margin``,
            ``loss``, ``kl`` (from the teacher), ``forgetting``. ``random`` is the control: every round
            ranks anew by chance, and the table records the entropy; with ``rank_over='kept'`` nothing returns.
        dropped_value: What dropped samples are ranked by: their ``last`` value (official), that ``aged`` by the fall
            of the kept ones' median, or one forward ``pass`` over them before each round. See :class:`.Dropped`.
        official_schedule: Count a round after the last epoch.
        logits: The student's classifier, such as ``head.fc``; found out when None.
        table: Write a row for each sample after each round.

    Raises:
        ValueError: If an option is not understood; before training, if no round fits into it, if images are
            mixed already, or will be; on resuming, if the checkpoint is of other data, options or rounds.
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
        dropped_value: str = 'last',
        official_schedule: bool = False,
        logits: str | None = None,
        table: bool = True,
    ) -> None:
        self.interval = check_whole(interval, 'KCDHook: interval', 1)
        self.begin = check_whole(begin, 'KCDHook: begin')
        self.final_ratio = check_number(final_ratio, 'KCDHook: final_ratio', 0, 1, above=True)
        self.alpha = check_number(alpha, 'KCDHook: alpha')
        self.epsilon_max = check_number(epsilon_max, 'KCDHook: epsilon_max', 0, 1)
        self.keep_schedule = check_schedule(keep_schedule)
        self.rank_over = check_choice(rank_over, 'rank_over')
        self.mixing = check_choice(mixing, 'mixing')
        self.value = check_choice(value, 'value')
        self.dropped_value = check_dropped_value(dropped_value, self.value, self.rank_over)
        self.cumulative = check_bool(cumulative, 'KCDHook: cumulative')
        self.official_schedule = check_bool(official_schedule, 'KCDHook: official_schedule')
        self.logits = check_path(logits)
        self.write_table = check_bool(table, 'KCDHook: table')
        self._options = dict(vars(self))  # these, for checkpoints
        self.active = False
        self.loader: Any = None
        self._loaded: Any = None

    def before_run(self, runner: Any) -> None:
        """Put the condensed data set and sampler around the training data; plan the rounds."""
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop) or (self.active and loop.dataloader is self.loader):  # a test
            return
        model = _student(runner)
        check_run(loop, model)
        self.observer = Observer(model, self.logits, 'entropy' if self.value == RANDOM else self.value)
        check_images_valued(self.observer, self.dropped_value, self.value)
        loader = loop.dataloader
        # another hook's; the condensed data set carries the index as well
        plain = loader.dataset.dataset if type(loader.dataset) is IndexedDataset else loader.dataset
        if isinstance(plain, CondensedDataset):
            raise RuntimeError('KCDHook stands in custom_hooks twice; expected once')
        dataset = CondensedDataset(plain, Mixer(self.mixing) if self.mixing else None)
        refuse_mixtures(model, plain)
        refuse_planned_mixtures(runner.hooks, model, loop.max_epochs)
        drawn = getattr(loader.batch_sampler, 'sampler', loader.sampler)
        self.sampler = CondensedSampler(dataset, drawn, _cut_size(loader))
        self.loader = loop.dataloader = rewrapped_loader(loader, dataset, self.sampler)
        self._fingerprint: str | None = None
        self.size = len(dataset)
        self.table = TABLES.get(self.value, ValueTable)(self.size)
        self.dropped = Dropped(self.dropped_value)
        # of the last round: samples that returned, out of how many; of all rounds: looked at without training
        self.returned, self.out, self.looked = 0, 0, 0
        self.kept = np.arange(self.size)
        self.recipes = RecipeBook(self.cumulative)
        self.round = 0
        self.rounds = self._plan(loop.max_epochs)
        self.counts = keep_counts(self.size, len(self.rounds), self.final_ratio, self.keep_schedule)
        self.pace = Pace(runner, self.sampler, self.rounds, self.counts)
        self.report = Report(runner, dataset, self.write_table)
        self.active = True
        if loop.epoch:  # resumed by hand, before this
            self._restore(runner)

    def before_train(self, runner: Any) -> None:
        """Remove tables that a longer run left in the folder; do the round that a shorter run ended before."""
        if is_main_process():
            self.report.forget(self.round)
        if self.round < len(self.rounds) and runner.epoch:
            check_next_round(self.rounds[self.round], runner.epoch)
            self._condense_where_due(runner, runner.epoch)

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

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Look once in each epoch at what hooks may have switched."""
        if batch_idx == 0:
            refuse_mixtures(_student(runner), self.sampler.dataset.dataset, f'at epoch {runner.epoch + 1}, ')

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Remember the values of this batch; keep schedules by iteration in step."""
        if runner.epoch >= self.begin:
            self.observer.read(data_batch)
        self.pace.after_iteration(batch_idx)

    def after_train_epoch(self, runner: Any) -> None:
        """Bring the processes' values together; condense where a round is due."""
        indices, values = gathered(self.observer.take())
        if len(indices):
            self.table.update(indices, values)
        self._condense_where_due(runner, runner.epoch + 1)

    def _condense_where_due(self, runner: Any, epoch: int) -> None:
        if self.round < len(self.rounds) and epoch == self.rounds[self.round]:
            self._condense(runner, epoch)

    def _condense(self, runner: Any, epoch: int) -> None:
        keep, previous = self.counts[self.round], len(self.kept)
        if not self.table.count.any():
            raise RuntimeError(f"KCDHook: no sample has a value after {epoch} epochs; '{self.observer.tap}' gave none")
        since = epoch - ([self.begin, *self.rounds][self.round])
        self.looked += self.dropped.renew(runner, self.observer, self.table, self.kept, since)
        order = self._ranked(runner)
        result = condense(order, keep, previous, self.epsilon_max if self.mixing else 0.0)
        before, self.kept = self.kept, np.sort(np.concatenate([result.high, result.low]))
        self.returned, self.out = len(np.setdiff1d(self.kept, before)), self.size - len(before)
        self.dropped.note(self.table, self.kept)
        if keep < previous:  # otherwise nothing is left to mix anew, and what is mixed stays
            self.recipes.turn(result, self.kept, forget_dropped=self.rank_over == 'kept')
        self._show()
        self.round += 1
        if is_main_process():
            self.report.write(self, result, epoch)

    def _ranked(self, runner: Any) -> np.ndarray:
        """Samples, the best first."""
        scores = self._scores(runner)
        chance = self._chance(runner) if self.table.counts_events else None
        if self.rank_over == 'all':
            return rank(scores, chance)
        return self.kept[rank(scores[self.kept], None if chance is None else chance[self.kept])]

    def _scores(self, runner: Any) -> np.ndarray:
        return self._chance(runner) if self.value == RANDOM else self.table.scores(self.alpha)

    def _chance(self, runner: Any) -> np.ndarray:
        # with diff_rank_seed each process has a seed of its own
        return random_scores(self.size, all_gather_object(runner.seed)[0], self.round)

    def _show(self) -> None:
        self.sampler.keep(self.kept, self.recipes)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Values, counts, partition, and what they belong to."""
        if self.active:
            checkpoint['kcd'] = {
                'table': self.table.state_dict(),
                'kept': torch.from_numpy(self.kept),
                'recipes': self.recipes.state_dict(),
                'rounds': self.rounds[: self.round],
                'counts': self.counts[: self.round],
                'saved': self.pace.saved,
                'looked': self.looked,
                'level': self.dropped.level,
                'options': self._shared_options(),
                'data': self._data(),
            }

    def _shared_options(self) -> dict[str, Any]:
        return {**self._options, 'logits': str(self.observer.tap)}

    def _data(self) -> str:
        """Computed when it is first needed: it reads all annotations."""
        self._fingerprint = self._fingerprint or fingerprint(self.sampler.dataset.dataset)
        return self._fingerprint

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was, on any number of processes."""
        self._loaded = checkpoint.get('kcd')
        if self.active and runner._resume:
            self._restore(runner)

    def _restore(self, runner: Any) -> None:
        state = self._loaded
        if state is None:
            raise ValueError(
                'KCDHook: the checkpoint to resume from was written without KCDHook and holds no values. Resume '
                'without the hook, or start from its weights with load_from'
            )
        self.table.load_state_dict(state['table'])
        check_rounds(state, self.rounds, self.counts)
        if 'options' in state:
            check_options(state['options'], self._shared_options())
            check_data(state['data'], self._data())
        else:
            runner.logger.warning(
                'KCDHook: the checkpoint to resume from was written by an earlier version, which did not note its data '
                'and options: they could not be compared. See that they are the same'
            )
        self.kept = state['kept'].cpu().numpy().copy()
        self.recipes.load_state_dict(state['recipes'])
        self.round, self.pace.saved = len(state['rounds']), state['saved']
        self.looked, self.dropped.level = state.get('looked', 0), state.get('level')
        self._loaded = None
        self._show()


def _student(runner: Any) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _cut_size(loader: DataLoader) -> int | None:
    """How many samples torch cuts into a batch, the last of which may be smaller; None if it does not."""
    batches = loader.batch_sampler
    return batches.batch_size if type(batches) is BatchSampler and not batches.drop_last else None
