"""Taps: reading what modules put out (or take in) during one forward pass, by dotted path."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor, nn

_SYNTAX = re.compile(r'(?P<path>[^:\[\]]*)(?P<input>:input)?(?P<index>(\[\d+\])*)')


class TapError(TypeError, ValueError):
    """A tap meets something else than one tensor."""


@dataclass(frozen=True)
class Tap:
    """One place to read: a module's output or input.

    Written ``'head.fc'`` (output), ``'backbone.layer4.1.relu:input'`` (first input), and with
    ``[i]`` behind it where the value is a tuple: ``'backbone[2]'``, ``'rpn_head[0][3]'``. A module
    that runs several times in one pass is read at its last call.
    """

    path: str
    of_input: bool = False
    index: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> 'Tap':
        """Read the written form.

        Raises:
            TypeError: If it is not a string.
            ValueError: If it does not follow the syntax.

        Example:
            >>> Tap.parse('backbone.layer4.1.relu:input')
            Tap(path='backbone.layer4.1.relu', of_input=True, index=())
            >>> str(Tap.parse('backbone[2]'))
            'backbone[2]'
        """
        if not isinstance(text, str):
            raise TypeError(f"tap {text!r} given, expected a string such as 'head.fc'")
        match = _SYNTAX.fullmatch(text.strip())
        if match is None or not match['path']:
            raise ValueError(f"tap {text!r} given, expected 'module.path', 'module.path:input' or 'module.path[index]'")
        return cls(match['path'], bool(match['input']), tuple(map(int, re.findall(r'\d+', match['index']))))

    def __str__(self) -> str:
        return self.path + (':input' if self.of_input else '') + ''.join(f'[{i}]' for i in self.index)

    def select(self, value: Any) -> Tensor:
        """The tensor in what the module put out or took in.

        Raises:
            TapError: If there is no tensor, or several and no ``[index]``.
        """
        for depth, index in enumerate(self.index):
            if not isinstance(value, (tuple, list)) or index >= len(value):
                self._refuse(value, self.index[:depth])
            value = value[index]
        if not self.index and isinstance(value, (tuple, list)) and len(value) == 1:
            value = value[0]
        if not isinstance(value, Tensor):
            self._refuse(value, self.index)
        return value

    def _refuse(self, value: Any, index: tuple[int, ...]) -> NoReturn:
        at = Tap(self.path, self.of_input, index)
        if isinstance(value, (tuple, list)) and value:
            what = [tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for v in value]
            raise TapError(
                f"tap '{self}' meets a sequence of {len(value)}: {what}; name one of them as '{at}[0]'"
                + (f" ... '{at}[{len(value) - 1}]'" if len(value) > 1 else '')
            )
        raise TapError(
            f"tap '{self}' meets a {type(value).__name__}, expected a tensor or a tuple of "
            'tensors; tap a module inside or after it (tools/list_modules.py lists them)'
        )


def find_module(model: nn.Module, path: str, side: str) -> nn.Module:
    """The submodule at a dotted path.

    Args:
        model: Where to look.
        path: Such as ``backbone.layer4``.
        side: What the model is called in the error: ``student`` or a teacher's name.

    Raises:
        ValueError: If there is none, with the nearest names.
    """
    try:
        return model.get_submodule(path)
    except AttributeError:
        modules = dict(model.named_modules())
    names = [name for name in modules if name and not name.startswith('distill')]
    near = difflib.get_close_matches(path, names, n=4, cutoff=0.5)
    parent, _, leaf = path.rpartition('.')
    near += [n for n in names if n.rpartition('.')[2] == leaf and n not in near][:4]
    while parent and parent not in modules:
        parent = parent.rpartition('.')[0]
    children = [name for name, _ in modules[parent].named_children() if name != 'distill']
    raise ValueError(
        f"the {side} ({type(model).__name__}) has no module '{path}'. "
        + (f'Near names: {", ".join(near)}. ' if near else '')
        + f"'{parent or 'the model'}' has: {', '.join(children) or 'no submodules'}. "
        'tools/list_modules.py CONFIG lists every module with its output shape'
    )


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
            (:class:`StopForward`) as soon as all have run that often.
        settle: By path of a module, taps that are settled each time it begins to run: what its last run took in,
            whatever is computed after it.

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
    ) -> None:
        self.taps = list(dict.fromkeys(taps))
        self.side = side
        self.clone = clone
        self._settle = dict(settle or {})
        self._settled: dict[Tap, tuple[Tensor, int]] = {}
        self.counts: dict[str, int] = {}
        self._expected = dict(calls) if calls is not None else None
        self._values: dict[Tap, tuple[Tensor, int]] = {}
        self._model = model
        self._modules = {t.path: find_module(model, t.path, side) for t in self.taps}

    @contextmanager
    def recording(self) -> Iterator['Taps']:
        """Hooks are in place inside the ``with`` block; a :class:`StopForward` ends the block."""
        handles = [
            find_module(self._model, path, self.side).register_forward_pre_hook(self._settler(taps))
            for path, taps in self._settle.items()
        ]
        for path, module in self._modules.items():
            inputs = [t for t in self.taps if t.path == path and t.of_input]
            outputs = [t for t in self.taps if t.path == path and not t.of_input]
            if inputs:
                handles.append(module.register_forward_pre_hook(self._pre_hook(inputs)))
            # always there, to count calls
            handles.append(module.register_forward_hook(self._hook(path, outputs)))
        try:
            yield self
        except StopForward:
            pass
        finally:
            for handle in handles:
                handle.remove()

    def _pre_hook(self, taps: list[Tap]) -> Any:
        def read_input(module: nn.Module, args: tuple[Any, ...]) -> None:
            for tap in taps:
                self._keep(tap, args if tap.index or not args else args[0])

        return read_input

    def _hook(self, path: str, taps: list[Tap]) -> Any:
        def read_output(module: nn.Module, args: Any, output: Any) -> None:
            for tap in taps:
                self._keep(tap, output)
            self.counts[path] = self.counts.get(path, 0) + 1
            if self._expected is not None and all(self.counts.get(p, 0) >= self._expected[p] for p in self._modules):
                raise StopForward

        return read_output

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

    def values(self, taps: Iterable[Tap] | None = None) -> dict[Tap, Tensor]:
        """What was read.

        Args:
            taps: Which; None is all.

        Raises:
            RuntimeError: If a tapped module did not run, or its tensor was overwritten in place.
        """
        wanted = self.taps if taps is None else list(taps)
        read = self._read()
        missing = [str(t) for t in wanted if t not in read]
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
