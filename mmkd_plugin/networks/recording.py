"""Reading tapped values during one forward pass, and writing them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .taps import Tap, find_module


class StopForward(BaseException):
    """Ends a forward pass once every tap has been read. Not an error; never leaves this package."""


class Taps:
    """Records tapped values during one forward pass.

    Args:
        model: The model whose modules are tapped.
        taps: What to read.
        side: What the model is called in errors.
        clone: Taps to copy at once, because a later module overwrites them in place.
        calls: How often each tapped module runs in a pass. When given, the forward pass is ended
            (:class:`StopForward`) as soon as all have run as often as somebody reads them.
        settle: By path of a module, taps that are settled each time it begins to run: what its last run took in,
            whatever is computed after it.
        write: Tensors that take the place of what modules put out or take in, at the call that the tap names or
            else at each; the pass goes on with them.
        any_size: Whether maps that are written may have another height and width than those in their place.
        every: Places whose values are kept at each call, tensors or not; see :meth:`all_of`.

    Raises:
        ValueError: If a path names no module.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Iterable[Tap],
        side: str = 'student',
        clone: Collection[Tap] = (),
        calls: Mapping[str, int] | None = None,
        settle: Mapping[str, Collection[Tap]] | None = None,
        write: Mapping[Tap, Tensor] | None = None,
        every: Iterable[Tap] = (),
        any_size: bool = False,
    ) -> None:
        self.taps = list(dict.fromkeys(taps))
        self.side = side
        self.clone = clone
        self._settle = dict(settle or {})
        self._settled: dict[Tap, tuple[Tensor, int]] = {}
        self._write, self._any_size = dict(write or {}), any_size
        self._every: dict[Tap, list[Any]] = {tap: [] for tap in every}
        self.counts: dict[str, int] = {}
        self._needed = None if calls is None else {path: self._last_call(path, calls[path]) for path in self._paths()}
        self._values: dict[Tap, tuple[Tensor, int]] = {}
        self._model = model
        touched = dict.fromkeys(tap.path for tap in (*self.taps, *self._write, *self._every))
        self._modules = {path: find_module(model, path, side) for path in touched}

    def _paths(self) -> set[str]:
        return {tap.path for tap in self.taps}

    def _last_call(self, path: str, calls: int) -> int:
        """How often a module has run when all that is read there has been."""
        read = [tap.call for tap in self.taps if tap.path == path]
        return max(calls if call is None else call + 1 for call in read)

    @contextmanager
    def recording(self) -> Iterator['Taps']:
        """Hooks are in place inside the ``with`` block; a :class:`StopForward` ends the block."""
        handles = [
            find_module(self._model, path, self.side).register_forward_pre_hook(self._settler(taps))
            for path, taps in self._settle.items()
        ]
        for path, module in self._modules.items():
            if any(tap.path == path and tap.of_input for tap in (*self.taps, *self._write, *self._every)):
                handles.append(module.register_forward_pre_hook(self._pre_hook(path)))
            # always there, to count calls
            handles.append(module.register_forward_hook(self._hook(path)))
        try:
            yield self
        except StopForward:
            pass
        finally:
            for handle in handles:
                handle.remove()

    def _at(self, taps: Iterable[Tap], path: str, of_input: bool) -> list[Tap]:
        return [tap for tap in taps if tap.path == path and tap.of_input == of_input]

    def _pre_hook(self, path: str) -> Any:
        reads, writes, every = (self._at(taps, path, True) for taps in (self.taps, self._write, self._every))

        def take_in(module: nn.Module, args: tuple[Any, ...]) -> Any:
            call = self.counts.get(path, 0)
            for tap in writes:
                if tap.call in (None, call):
                    new = self._write[tap].clone()  # a module that works in place must not change the original
                    old = args if tap.index else args[0]
                    changed = tap.replace(old, new, self._any_size)
                    args = changed if tap.index else (changed, *args[1:])
            for tap in reads:
                if tap.call in (None, call):
                    self._keep(tap, args if tap.index or not args else args[0])
            for tap in every:
                self._every[tap].append(tap.part(args if tap.index or not args else args[0]))
            return args if writes else None

        return take_in

    def _hook(self, path: str) -> Any:
        reads, writes, every = (self._at(taps, path, False) for taps in (self.taps, self._write, self._every))

        def put_out(module: nn.Module, args: Any, output: Any) -> Any:
            call = self.counts.get(path, 0)
            for tap in writes:
                if tap.call in (None, call):
                    output = tap.replace(output, self._write[tap].clone(), self._any_size)
            for tap in reads:
                if tap.call in (None, call):
                    self._keep(tap, output)
            for tap in every:
                self._every[tap].append(tap.part(output))
            self.counts[path] = call + 1
            if self._needed is not None and all(self.counts.get(p, 0) >= n for p, n in self._needed.items()):
                raise StopForward
            return output if writes else None

        return put_out

    def _keep(self, tap: Tap, value: Any) -> None:
        tensor = tap.select(value)
        if tap in self.clone:
            tensor = tensor.clone()
        self._values[tap] = (tensor, tensor._version)

    def _settler(self, taps: Collection[Tap]) -> Any:
        def settle(module: nn.Module, args: Any) -> None:
            self._settled.update({tap: self._values[tap] for tap in taps if tap in self._values})

        return settle

    def _read(self) -> dict[Tap, tuple[Tensor, int]]:
        return {**self._values, **self._settled}

    def overwritten(self) -> set[Tap]:
        """Taps whose tensor was changed in place after it had been read."""
        return {t for t, (tensor, version) in self._read().items() if tensor._version != version}

    def peek(self, tap: Tap) -> Tensor | None:
        """What one tap read; None if its module did not run."""
        read = self._read()
        return read[tap][0] if tap in read else None

    def in_order(self) -> list[Tap]:
        """The taps that were read, in the order in which their modules ran first."""
        return list(self._values)

    def all_of(self, tap: Tap) -> list[Any]:
        """What one of ``every`` was at each call, in order."""
        return self._every[tap]

    def values(self, taps: Iterable[Tap] | None = None) -> dict[Tap, Tensor]:
        """What was read.

        Args:
            taps: Which; None is all.

        Raises:
            RuntimeError: If a tapped module did not run (as often), or its tensor was overwritten in place.
        """
        wanted = self.taps if taps is None else list(taps)
        read = self._read()
        missing = [self._missing(tap) for tap in wanted if tap not in read]
        if missing:
            raise RuntimeError(
                f'the {self.side} did not run {", ".join(missing)} in this forward pass; '
                'tap modules that run in every training step'
            )
        if overwritten := self.overwritten() & set(wanted):
            raise RuntimeError(
                f'a later module of the {self.side} changed {", ".join(map(str, overwritten))} in '
                'place after it had been tapped; tap the later module, or set its inplace=False'
            )
        return {tap: read[tap][0] for tap in wanted}

    def _missing(self, tap: Tap) -> str:
        ran = self.counts.get(tap.path, 0)
        return f'{tap} (it ran {ran} times, counted from @0)' if ran else str(tap)
