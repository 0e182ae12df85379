"""Watches a few real training steps from inside the Runner."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from ..distillation.entries import tensors
from ..distillation.shares import Share, gradient_shares
from ..facts import Progress
from ..hooks.diagnose import scale_of
from ..teachers import Frozen
from .measured import LossFacts, Measured, Softness
from .teachers import look_at_teachers
from .values import bytes_of, entropy, facts_of, optimizers_of


class EnoughError(Exception):
    """All steps are done."""


class Probe(Hook):
    """Measures, and ends the run by :class:`EnoughError`.

    Args:
        measured: Gets what is found.
        steps: How many; the losses are differentiated one by one in three of them, and one counts what is kept for the
            way back; the others are timed.
        images: Of the validation data.
    """

    priority = 'VERY_LOW'  # after everybody

    def __init__(self, measured: Measured, steps: int, images: int) -> None:
        self.measured = measured
        self._steps, self._images = steps, images
        self._differentiated = {0, steps // 2, steps - 1}
        self._kept_in = 1
        self._clock: dict[str, float] = {}
        self._times: list[dict[str, float]] = []
        self._shares: dict[tuple[str, str], list[Share]] = {}
        self._ended = self._begun = 0.0
        self._before: list[Tensor] = []
        self._handles: list[Any] = []
        self._inside = ''
        self._kept: dict[str, dict[int, int]] = {'student': {}, 'losses': {}}
        self._saving: Any = None
        self._now = Progress()

    def before_train(self, runner: Any) -> None:
        """Evaluate, and be everywhere."""
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if runner.val_loop is not None:
            runner.train_loop.val_interval = 10**9
        look_at_teachers(runner, self._model, self.measured, self._images)
        self._read_schedules(runner)
        distillation = self._model.distill
        for source in distillation.sources.values():
            if isinstance(source, Frozen) or source.model is not None:
                source.read = self._timed(source.read, 'teachers')
        for term in distillation.terms:
            self._handles += [term.register_forward_pre_hook(self._enter), term.register_forward_hook(self._leave)]
        self._handles += [
            self._model.register_forward_pre_hook(self._step_begins, with_kwargs=True),
            self._model.register_forward_hook(self._step_ends),
        ]
        self._before = [p.detach().clone() for p in self._own()]
        self._ended = self._tick()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """The time of the run that is meant, and a clock."""
        self._begun = self._tick()
        self._clock = {'data': self._begun - self._ended, 'teachers': 0.0, 'losses': 0.0, 'forward': 0.0}
        runner.message_hub.update_info('epoch', self._now.epoch)
        runner.message_hub.update_info('iter', self._now.iteration)
        self._runner = runner
        self._model.distill.listeners.append(self._listen)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop the clock, and perhaps the run."""
        self._model.distill.listeners.remove(self._listen)
        end, step = self._tick(), self.measured.steps
        if step not in self._differentiated | {self._kept_in}:
            clock = dict(self._clock)
            forward = clock.pop('forward')
            clock['student'] = forward - clock['teachers'] - clock['losses']
            clock['update'] = end - self._begun - forward
            self._times.append(clock)
        self.measured.steps += 1
        if self.measured.steps >= self._steps:
            raise EnoughError
        self._ended = self._tick()

    def finish(self, runner: Any) -> None:
        """Put together what was seen."""
        for handle in self._handles:
            handle.remove()
        measured = self.measured
        if self._model.distill.peers:
            measured.untold.append("time and memory of peers by themselves: they stand with the student's")
        for (learner, name), shares in self._shares.items():
            if name in measured.losses:
                self._tell_share(measured.losses[name], learner, name, shares)
            else:
                measured.task_share[learner] = sum(share.share for share in shares) / len(shares)
        for part in ('data', 'student', 'teachers', 'losses', 'update'):
            values = sorted(clock[part] for clock in self._times)
            if values:
                measured.seconds[part] = max(values[len(values) // 2], 0.0)
        if measured.steps and self._before:
            self._tell_movement(runner)
        measured.memory = self._memory(runner)

    def _tell_share(self, facts: LossFacts, learner: str, name: str, shares: list[Share]) -> None:
        """With its schedule at its most, the others as they are."""
        raised = facts.most / facts.factor if facts.factor else 1.0
        values = []
        for number, share in enumerate(shares):
            others = [s[number].norm for (who, other), s in self._shares.items()
                      if who == learner and other != name and len(s) > number]  # fmt: skip
            norm = share.norm * raised
            values.append(norm / ((norm + sum(others)) or 1.0))
        facts.share = sum(values) / len(values)
        cosines = [share.cosine for share in shares if share.cosine is not None]
        facts.cosine = sum(cosines) / len(cosines) if cosines else None

    def _tell_movement(self, runner: Any) -> None:
        pairs = list(zip(self._own(), self._before, strict=True))
        far = torch.stack([(p.detach().float() - b.float()).square().sum() for p, b in pairs]).sum().sqrt()
        size = torch.stack([b.float().square().sum() for _, b in pairs]).sum().sqrt()
        measured = self.measured
        measured.moved = float(far / size.clamp_min(1e-12)) / measured.steps
        groups = [group for optimizer in optimizers_of(runner) for group in optimizer.param_groups]
        now = max((float(group['lr']) for group in groups), default=0.0)
        most = max(
            (float(group.get(key, 0.0)) for group in groups for key in ('lr', 'initial_lr', 'max_lr')), default=0.0
        )
        measured.rate = now, most
        measured.moved_most = measured.moved * (most / now if now else 1.0)

    def _memory(self, runner: Any) -> dict[str, int]:
        distillation = self._model.distill
        found = {
            'student, weights': bytes_of(self._own()),
            'teachers, weights': sum(bytes_of(s.model.parameters()) for s in distillation.sources.values()
                                     if s.model is not None),
            'losses, learnable parts': bytes_of(distillation.losses.parameters()),
            'losses, what they remember': bytes_of(distillation.losses.buffers()),
            'optimizer': sum(bytes_of(v for v in state.values() if isinstance(v, Tensor))
                             for optimizer in optimizers_of(runner) for state in optimizer.state.values()),
            'student, kept for the way back': sum(self._kept['student'].values()),
            'losses, kept for the way back': sum(self._kept['losses'].values()),
        }  # fmt: skip
        if torch.cuda.is_available():
            found['most of the GPU at once'] = torch.cuda.max_memory_allocated()
        return found

    def _own(self) -> list[nn.Parameter]:
        return [p for name, p in self._model.named_parameters() if not name.startswith('distill.')]

    def _tick(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def _timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self._tick()
            result = call(*args, **kwargs)
            self._clock[part] = self._clock.get(part, 0.0) + self._tick() - start
            return result

        return timed

    def _step_begins(self, module: Any, args: Any, kwargs: Any) -> None:
        self._forward = self._tick()
        images = args[0] if args else next(iter(kwargs.values()), None)
        if self.measured.input_rms is None and isinstance(images, Tensor):
            self.measured.input_rms = float(images.float().square().mean().sqrt())
        if self.measured.steps == self._kept_in:
            self._inside = 'student'
            self._saving = torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor)
            self._saving.__enter__()

    def _step_ends(self, module: Any, args: Any, output: Any) -> None:
        if self._saving is not None:
            self._saving.__exit__(None, None, None)
            self._saving = None
        self._clock['forward'] = self._tick() - self._forward

    def _save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        weights = self._addresses()
        if storage.data_ptr() not in weights and storage.data_ptr() not in self._kept['student']:
            self._kept[self._inside or 'student'][storage.data_ptr()] = storage.nbytes()
        return tensor

    def _addresses(self) -> set[int]:
        if not hasattr(self, '_weights'):
            self._weights = {p.untyped_storage().data_ptr() for p in self._model.parameters()}
        return self._weights

    def _enter(self, term: Any, args: Any) -> None:
        self._inside = 'losses'
        if self.measured.steps == 0:
            self._look(term, args[0])
        self._term_began = self._tick()

    def _leave(self, term: Any, args: Any, output: Any) -> None:
        self._clock['losses'] += self._tick() - self._term_began
        self._inside = 'student'

    @torch.no_grad()
    def _look(self, term: Any, values: Mapping[str, Mapping[Any, Tensor]]) -> None:
        """At what one loss compares, in the first step."""
        for side, own in values.items():
            for tap in term.taps(side):
                if (value := own.get(tap)) is None:  # what goes through a source is read there
                    continue
                if value.numel():
                    self.measured.taps.append(facts_of(term.name, side, str(tap), value.detach().float()))
                if term.compares_logits and value.ndim == 2 and len(value):
                    temperature = float(getattr(term[0], 'temperature', 1.0) or 1.0)
                    frozen = isinstance(self._model.distill.sources.get(side), Frozen)
                    softened, plain = (entropy(value.float() / t) for t in (temperature, 1.0))
                    self.measured.softness.append(Softness(term.name, side, frozen, temperature, softened, plain))

    def _listen(self, losses: Mapping[str, Any]) -> None:
        """To the losses of a step."""
        terms, measured = {term.name for term in self._model.distill.terms}, self.measured
        own = {
            n: torch.stack([t.detach().mean().float() for t in tensors(v)]).sum()
            for n, v in losses.items()
            if 'loss' in n
        }
        numbers = {name: float(value) for name, value in own.items()}
        measured.total.append(sum(numbers.values()))
        measured.task.append(sum(value for name, value in numbers.items() if name not in terms))
        for name in terms & numbers.keys():
            measured.losses[name].values.append(numbers[name])
        if measured.steps in self._differentiated:
            try:
                shares = gradient_shares(self._model, losses, scale_of(self._runner))
            except RuntimeError as error:
                if 'use_reentrant' not in str(error):
                    raise
                measured.untold.append('shares of the gradient: activation checkpoints (with_cp=True) hide them')
                self._differentiated = set()
                return
            for share in shares:
                self._shares.setdefault((share.learner, share.name), []).append(share)

    def _read_schedules(self, runner: Any) -> None:
        """The time at which most is on, and what the schedules say."""
        planner, loop = self._model.distill.planner, runner.train_loop
        epochs, iterations = int(loop.max_epochs), int(loop.max_iters)
        each = max(iterations // max(epochs, 1), 1)
        times = {Progress(0, 0, epochs, iterations), Progress(epochs - 1, iterations - 1, epochs, iterations)}
        for _, schedule in planner.schedules:
            for t in schedule.turns | {schedule.begin + schedule.warmup}:
                at = min(t * each, iterations - 1) if schedule.by_epoch else min(t, iterations - 1)
                times.add(Progress(min(at // each, epochs - 1), at, epochs, iterations))
        terms = self._model.distill.terms

        def worth(at: Progress) -> tuple[float, ...]:
            factors = [schedule.factor(at) for _, schedule in planner.schedules]
            return sum(map(bool, factors)), sum(factors), -at.iteration

        self._now = max(times, key=worth)
        self.measured.at = f'epoch {self._now.epoch}' if epochs > 1 else f'iteration {self._now.iteration}'
        for term in terms:
            most = max(term.schedule.factor(at) for at in times)
            begins = f'{term.schedule.unit} {term.schedule.begin}' if not term.schedule.constant else ''
            factor = term.schedule.factor(self._now)
            self.measured.losses[term.name] = LossFacts(
                term.kind, term.learner, bool(factor), begins, factor, most, getattr(term[0], 'loss_weight', None)
            )
