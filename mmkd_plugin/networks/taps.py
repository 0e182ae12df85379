"""Taps: places in a network where a value is read or written, by dotted path."""

import difflib
import re
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

    def replace(self, value: Any, tensor: Tensor, any_size: bool = False) -> Any:
        """The value with another tensor in place of the one that :meth:`select` gives.

        Args:
            value: What the module put out or took in.
            tensor: The other.
            any_size: Whether a map of another height and width may take its place.

        Raises:
            TapError: If there is none.
            ValueError: If the other has another shape.
        """
        before = self.select(value)
        of_size = 2 if any_size and before.ndim == tensor.ndim else max(before.ndim, tensor.ndim)
        if before.shape[:of_size] != tensor.shape[:of_size]:
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
        if isinstance(value, Tensor):
            raise TapError(f"tap '{self}' meets one tensor {tuple(value.shape)} at '{at}': drop what is behind that")
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
