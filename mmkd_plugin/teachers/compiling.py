"""Compiling the parts of a frozen teacher that nobody looks into."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn


class CompiledParts:
    """Forwards of the largest modules without a tap inside, compiled by torch.

    A tap on such a module reads it through a hook, and hooks run outside of its ``forward``: so taps, writing, and
    ending a pass, stay what they are, and nothing has to be compiled anew for other taps.

    A part is compiled when it first runs, and for further shapes as torch decides: once more with sizes that vary, and
    at most ``torch._dynamo.config.recompile_limit`` (8) times; then torch runs new shapes uncompiled and says so.
    Where anything of this fails, all parts run as they were, and a warning says so once.

    Args:
        model: Changed in place: its parts get a ``forward`` of their own.
        tapped: Paths of tapped modules.
        ran: Modules that are called in a pass.
        name: What the network is called in the log.
    """

    def __init__(self, model: nn.Module, tapped: Collection[str], ran: Collection[nn.Module], name: str) -> None:
        self.name = name
        self.on = True
        #: Whether their values have been compared with the uncompiled ones.
        self.checked = False
        #: Their paths.
        self.paths: list[str] = []
        self._find(model, '', tapped, ran)

    def _find(self, parent: nn.Module, prefix: str, tapped: Collection[str], ran: Collection[nn.Module]) -> None:
        for name, module in parent.named_children():
            path = f'{prefix}{name}'
            if not any(True for _ in module.children()):  # a single layer gains nothing
                continue
            if module in ran and not any(tap.startswith(f'{path}.') for tap in tapped):
                self.paths.append(path)
                module.forward = self._part(module.forward)
            else:
                self._find(module, f'{path}.', tapped, ran)

    def _part(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, **kwargs)

        run.__code__ = run.__code__.replace()  # torch counts compilations by code object
        fast = torch.compile(run)

        def part(*args: Any, **kwargs: Any) -> Any:
            if not self.on or torch.is_grad_enabled():  # what goes through, once in a while, is not worth it
                return forward(*args, **kwargs)
            try:
                return fast(*args, **kwargs)
            except Exception as error:  # compilers are anybody's code
                self.give_up(f'{type(error).__name__}: {error}'.splitlines()[0])
                return forward(*args, **kwargs)

        return part

    def give_up(self, reason: str) -> None:
        """Run uncompiled from now on, and say why."""
        self.on = False
        print_log(f'{self.name}: not compiled, it runs as it is ({reason})', 'current', logging.WARNING)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside the block they run uncompiled."""
        before, self.on = self.on, False
        try:
            yield
        finally:
            self.on = before
