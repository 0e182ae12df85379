"""Taps: reading what modules put out (or take in) during one forward pass, by dotted path; and writing it."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor, nn

_SYNTAX = re.compile(r'(?P<path>[^:@\[\]]*)(@(?P<call>\d+))?(?P<input>:input)?(?P<index>(\[\d+\])*)')


class TapError(TypeError, ValueError):
    """A tap meets something else than one tensor."""


@dataclass(frozen=True)
class Tap:
    """One place to read: a module's output or input.

    Written ``'head.fc'`` (output), ``'backbone.layer4.1.relu:input'`` (first input), and with
    ``[i]`` behind it where the value is a tuple: ``'backbone[2]'``, ``'rpn_head[0][3]'``. A module
    that runs several times in one pass is read at its last call, or at the one that ``@n`` names,
    counted from 0: ``'rpn_head.rpn_conv@2'`` is its third call, ``'bbox_head.retina_cls@0:input'``
    what it takes in at its first.
    """

    path: str
    of_input: bool = False
    index: tuple[int, ...] = ()
    call: int | None = None

    @classmethod
    def parse(cls, text: str) -> 'Tap':
        """Read the written form.

        Raises:
            TypeError: If it is not a string.
            ValueError: If it does not follow the syntax.

        Example:
            >>> Tap.parse('backbone.layer4.1.relu:input')
            Tap(path='backbone.layer4.1.relu', of_input=True, index=(), call=None)
            >>> str(Tap.parse('rpn_head.rpn_conv@2'))
            'rpn_head.rpn_conv@2'
        """
        if not isinstance(text, str):
            raise TypeError(f"tap {text!r} given, expected a string such as 'head.fc'")
        match = _SYNTAX.fullmatch(text.strip())
        if match is None or not match['path']:
            raise ValueError(
                f"tap {text!r} given, expected 'module.path', 'module.path:input' or 'module.path[index]', with @n "
                'behind the path for the n-th call (from 0) of a module that runs several times'
            )
        call = None if match['call'] is None else int(match['call'])
        return cls(match['path'], bool(match['input']), tuple(map(int, re.findall(r'\d+', match['index']))), call)

    def __str__(self) -> str:
        call = '' if self.call is None else f'@{self.call}'
        return self.path + call + (':input' if self.of_input else '') + ''.join(f'[{i}]' for i in self.index)

    def below(self, *paths: str) -> bool:
        """Whether the module is one of these, or lies in one of them."""
        return any(f'{self.path}.'.startswith(f'{path}.') for path in paths)

    def select(self, value: Any) -> Tensor:
        """The tensor in what the module put out or took in.

        Raises:
            TapError: If there is no tensor, or several and no ``[index]``.
        """
        value = self.part(value)
        if not isinstance(value, Tensor):
            self._refuse(value, self.index)
        return value

    def part(self, value: Any) -> Any:
        """What ``[index]`` names in a value, tensor or not.

        Raises:
            TapError: If it has no such part.
        """
        for depth, index in enumerate(self.index):
            if not isinstance(value, (tuple, list)) or index >= len(value):
                self._refuse(value, self.index[:depth])
            value = value[index]
        if not self.index and isinstance(value, (tuple, list)) and len(value) == 1:
            value = value[0]
        return value

    def replace(self, value: Any, tensor: Tensor) -> Any:
        """The value with another tensor in place of the one that :meth:`select` gives.

        Raises:
            TapError: If there is none.
            ValueError: If the other has another shape.
        """
        before = self.select(value)
        if before.shape != tensor.shape:
            raise ValueError(f"'{self}' has the shape {tuple(before.shape)}, and {tuple(tensor.shape)} was to go there")
        index = self.index or ((0,) if value is not before else ())
        return _with(value, index, tensor)

    def _refuse(self, value: Any, index: tuple[int, ...]) -> NoReturn:
        at = Tap(self.path, self.of_input, index, self.call)
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


def _with(value: Any, index: tuple[int, ...], tensor: Tensor) -> Any:
    """A nested sequence with one of its tensors exchanged; sequences stay of their kind."""
    if not index:
        return tensor
    items = [_with(item, index[1:], tensor) if i == index[0] else item for i, item in enumerate(value)]
    return items if isinstance(value, list) else tuple(items)


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
            (:class:`StopForward`) as soon as all have run as often as somebody reads them.
        settle: By path of a module, taps that are settled each time it begins to run: what its last run took in,
            whatever is computed after it.
        write: Tensors that take the place of what modules put out or take in, at the call that the tap names or
            else at each; the pass goes on with them.
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
    ) -> None:
        self.taps = list(dict.fromkeys(taps))
        self.side = side
        self.clone = clone
        self._settle = dict(settle or {})
        self._settled: dict[Tap, tuple[Tensor, int]] = {}
        self._write = dict(write or {})
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
                    args = tap.replace(args, new) if tap.index else (tap.replace(args[0], new), *args[1:])
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
                    output = tap.replace(output, self._write[tap].clone())
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
