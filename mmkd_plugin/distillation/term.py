"""A term: one entry of `losses` in a config: a loss, what it reads of whom, who learns from it, and when it counts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..facts import NEEDS, Batch, Facts, KnownNetworks, Progress, TapShape, TrainingData
from ..losses import DistillLoss
from ..networks import BoxBranch, Network, Tap
from ..options import check_mapping
from .dense_places import whole_heads
from .read_losses import build_loss, check_name, loss_class, read_on, read_schedule, read_through

#: By side (the learner, sources), tapped values.
Values = Mapping[str, Mapping[Tap, Tensor]]


class Call(NamedTuple):
    """One call of one loss module: its layers by side, and the learner's box branch whose RoIs are the rows."""

    module: Any
    layers: dict[str, Any]
    rows: BoxBranch | None


class Term(nn.ModuleList):
    """The loss modules of one entry: one for each layer, or one for all where layers are related.

    Args:
        name: Its key in ``losses``.
        cfg: ``dict(type=..., on=..., teacher=..., learner=..., through=..., schedule=..., **arguments)``.
        sources: The names there are.
        peers: Those of them that learn.
        share: A factor on its weight.
        networks: By side; with them, dense heads may be named as a whole.

    Raises:
        ValueError: If the name, a key, or what the loss needs is not understood.
    """

    def __init__(
        self,
        name: str,
        cfg: Mapping[str, Any],
        sources: Sequence[str],
        peers: Sequence[str] = (),
        share: float = 1.0,
        networks: Mapping[str, Network] | None = None,
    ) -> None:
        check_name(name)
        who = f"losses['{name}']"
        example = "dict(type='KDLoss', on='head.fc', ...)"
        arguments = check_mapping(cfg, who, example)
        if not {'type', 'on'} <= set(arguments):
            raise ValueError(f'{who}={cfg!r} given, expected {example} with at least `type` and `on`')
        kind = loss_class(name, arguments.pop('type'))
        special = {key: arguments.pop(key, None) for key in ('on', 'teacher', 'learner', 'through', 'schedule')}
        first = build_loss(name, kind, arguments)
        learner = special['learner'] or 'student'
        if learner not in ('student', *peers):
            raise ValueError(f'{who} has learner={learner!r}, expected one of {["student", *peers]}')
        on = read_on(special['on'], name, sources, special['teacher'], learner, first.sides)
        through = read_through(special['through'] or (), who)
        if first.dense_outputs and networks:
            on, through = whole_heads(on, through, learner, first, networks, f'{who} ({kind.__name__})')
        schedule = read_schedule(special['schedule'], name)
        lengths = _lengths(on, through, learner, first, who)
        layers = 1 if first.relates_layers else max(lengths)
        super().__init__([first, *(build_loss(name, kind, arguments) for _ in range(layers - 1))])
        #: By side, where it reads; the learner's side is not there if the loss reads sources only.
        self.on = on
        self.name, self.learner, self.through, self.schedule = name, learner, through, schedule
        self._share = share
        self.sources = [side for side in on if side != learner]
        self.kind = kind.__name__
        self.sides, self.needs, self.uses = first.sides, first.needs, first.uses
        self.relates_layers, self.compares_logits = first.relates_layers, first.compares_logits
        self.dense_outputs = first.dense_outputs
        self.who = f'{who} ({self.kind})'
        #: By side, the learner's box branch whose RoIs are the rows of each tap; None where images are.
        self.rows: dict[str, list[BoxBranch | None]] = {}
        if unknown := [need for need in self.needs if need not in NEEDS]:
            raise ValueError(
                f'{self.kind} needs {unknown[0]!r}; known: {", ".join(NEEDS)}. '
                'mmkd_plugin.facts.register_need makes more known'
            )

    def factor(self, progress: Progress) -> float:
        """How much of it counts now; 0 means off: outside its schedule, or with ``loss_weight=0``."""
        return self.schedule.factor(progress) * self._share if self.counts else 0.0

    @property
    def counts(self) -> bool:
        """Whether it has a weight."""
        return any(getattr(module, 'loss_weight', 1.0) for module in self)

    def taps(self, side: str) -> list[Tap]:
        """What it reads of a side."""
        return self.on.get(side, [])

    @property
    def branches(self) -> set[BoxBranch]:
        """Box branches of the student whose RoIs it reads."""
        return {branch for rows in self.rows.values() for branch in rows if branch}

    def forward(self, values: Values, batch: Batch) -> Tensor:
        """The value, summed over layers.

        Args:
            values: By side; of the learner with gradient.
            batch: What the needs are taken from.
        """
        results = [
            call.module(*self._arguments(call), **{need: batch.get(need, call.rows) for need in self.needs})
            # without RoIs of a detector a loss is zero, unless other processes wait for its rows
            if all(map(len, _flat(call.layers))) or getattr(call.module, 'gather', False)
            else _zero(call.module, _flat(call.layers))
            for call in self._calls(values)
        ]
        return torch.stack(results).sum() if len(results) > 1 else results[0]

    def connect(self, values: Values, batch: Batch, networks: Mapping[str, Network]) -> None:
        """Make the learnable parts for values of a dry run, and try the loss on them.

        Raises:
            ValueError: If it cannot work on such values; the message gives taps and shapes.
        """
        shapes = {
            side: {tap: TapShape.of(values[side][tap], tap, networks[self._owner(side)].model) for tap in taps}
            for side in self.on
            for taps in [self._read(side)]
        }
        try:
            for call in self._calls(shapes):
                call.module.build_connectors(*self._arguments(call))
            like = next(iter(values[next(iter(self.on))].values()))
            self.to(like.device, like.dtype if like.is_floating_point() else None)
            if self.learner not in self.on and not any(True for _ in self.parameters()):
                raise TypeError('it reads no learner and has no learnable parts, so that it would train nothing')
            if not all(batch.has_example(need) for need in self.needs):
                return  # it is tried in the first step
            self.eval()
            with torch.no_grad():
                value = self(values, batch)
            self.train()
            if not isinstance(value, Tensor) or value.numel() != 1:
                told = f'a tensor {tuple(value.shape)}' if isinstance(value, Tensor) else f'{value!r:.200}'
                raise TypeError(f'it returned {told}, expected a scalar tensor')
        except torch.cuda.OutOfMemoryError:
            raise
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
            where = self._told(shapes)
            raise ValueError(f'{self.who} cannot work on {where} (of a dry run with batch 2): {error}') from error

    def _told(self, shapes: Mapping[str, Mapping[Tap, TapShape]]) -> str:
        """Where it reads, and what is there: layer by layer if all sides have as many."""
        sides = [[f"{side} '{tap}' {tuple(shape)}" for tap, shape in own.items()] for side, own in shapes.items()]
        layers = zip(*sides, strict=True) if len({len(side) for side in sides}) == 1 else sides
        return '; '.join(', '.join(layer) for layer in layers)

    def reserve(self, data: TrainingData) -> None:
        """Let the loss make room for what it keeps of each sample; see ``DistillLoss.reserve``.

        Raises:
            ValueError: If there is none.
        """
        for module in self:
            try:
                module.reserve(data)  # type: ignore[operator]
            except ValueError as error:
                raise ValueError(f'{self.who}: {error}') from error

    def prepare(
        self,
        networks: Mapping[str, Any],
        data: TrainingData,
        classes: Mapping[str, Sequence[str] | None],
        changing: Collection[str] = (),
    ) -> None:
        """Let the loss see the networks with their weights, and the training data; see ``DistillLoss.prepare``.

        Args:
            networks: By side.
            data: The training data.
            classes: Of teachers, what they were trained to tell apart, where they say so.
            changing: Sources whose weights change while they teach; the loss sees none of these, but as its learner.

        Raises:
            ValueError: If it asks for what is not there.
        """
        known = {side: classes[side] for side in self.on if side in classes}
        hidden = set(changing) - {self.learner}
        facts = Facts(KnownNetworks({side: networks[side] for side in self.on}, hidden), self.on, data, known)
        for module in self:
            before = [*module.named_parameters(), *module.named_buffers()]
            try:
                with torch.no_grad():
                    told = module.prepare(facts)  # type: ignore[operator]
            except ValueError as error:
                raise ValueError(f'{self.who}: {error}') from error
            if told:
                print_log(f'{self.who}: {told}', 'current')
            after = [*module.named_parameters(), *module.named_buffers()]
            if [(name, id(own)) for name, own in before] != [(name, id(own)) for name, own in after]:
                raise ValueError(
                    f'{self.who}: prepare() made or exchanged parameters or buffers, when optimizer and EMA have '
                    'theirs already: make them in build_connectors(), and fill them here, as by self.margin.copy_(...)'
                )

    def check_gradient(self, values: Mapping[Tap, Tensor], alone: int = 0) -> None:
        """Refuse to teach nothing.

        Args:
            values: Of the learner, or what became of them.
            alone: If only new rows of the student train now, the epoch at which the rest begins.

        Raises:
            RuntimeError: If a tapped tensor of the learner carries no gradient.
        """
        taps = list(values) if self.through else self.taps(self.learner)
        dead = [str(tap) for tap in taps if not values[tap].requires_grad]
        # a loss that relates layers teaches as long as one of them learns
        if torch.is_grad_enabled() and dead and (not self.relates_layers or len(dead) == len(taps)):
            if self.through:
                raise RuntimeError(
                    f'{self.who}: what is written at {[str(tap) for tap in self.through]} does not reach {dead} of '
                    f"'{self.sources[0]}': read it behind the place that is written"
                )
            if alone and self.learner == 'student':
                raise RuntimeError(
                    f'{self.who} reads {dead} of the student, which carries no gradient while its new rows train alone '
                    f'(start): let the loss begin after that, schedule=dict(begin={alone})'
                )
            raise RuntimeError(
                f'{self.who} reads {dead} of the {self.learner}, which carries no gradient, so that would teach '
                'nothing: it is frozen, detached, or inside an activation checkpoint (with_cp=True). Tap a later module'
            )

    def _calls(self, values: Mapping[str, Mapping[Tap, Any]]) -> Iterator[Call]:
        """Each module with its value, or its list of values, of each side."""
        layers = {side: [values[side][tap] for tap in self._read(side)] for side in self.on}
        rows = self.rows.get(self.learner) or [None]
        if self.relates_layers:
            yield Call(self[0], layers, rows[0])
        else:
            for number, module in enumerate(self):
                row = rows[min(number, len(rows) - 1)]
                yield Call(module, {side: own[number] for side, own in layers.items()}, row)

    def _owner(self, side: str) -> str:
        """Of the values that the loss gets as a side's: the source, where the learner's go through it."""
        return self.sources[0] if self.through else side

    def _read(self, side: str) -> list[Tap]:
        return self.on[self._owner(side)]

    def _arguments(self, call: Call) -> list[Any]:
        """What a module takes first, in the order of its sides."""
        by_source = {source: call.layers[source] for source in self.sources}
        known = {
            'student': call.layers.get(self.learner),
            'teachers': by_source,
            'teacher': next(iter(by_source.values()), None),
        }
        return [known[side] for side in self.sides]


def _lengths(on: Mapping[str, list[Tap]], through: list[Tap], learner: str, loss: DistillLoss, who: str) -> list[int]:
    """How many layers of each side the loss gets: what goes through a source is read there."""
    lengths = {side: len(taps) for side, taps in on.items()}
    if through:
        if len(on) != 2 or lengths.get(learner) != len(through):
            raise ValueError(
                f'{who}: through={[str(tap) for tap in through]} needs as many taps of the learner, and one source '
                f'whose pass they go through; on reads {lengths}'
            )
        del lengths[learner]
    if not loss.relates_layers and len(set(lengths.values())) > 1:
        given = {side: [str(tap) for tap in taps] for side, taps in on.items()}
        raise ValueError(
            f'{who} has on={given}, expected as many layers of each side: {type(loss).__name__} compares them one by '
            'one'
        )
    return list(lengths.values())


def _flat(layers: Mapping[str, Any]) -> list[Tensor]:
    return [value for own in layers.values() for value in (own if isinstance(own, list) else [own])]


def _zero(module: nn.Module, values: Sequence[Tensor]) -> Tensor:
    """Zero that depends on a module's learnable parts and on tapped tensors."""
    return torch.stack([tensor.float().sum() for tensor in (*values, *module.parameters())]).sum() * 0.0
