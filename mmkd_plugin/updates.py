"""Hearing of every optimizer's steps: a model never meets its optimizer, and torch tells of all of them."""

from typing import Any
from weakref import WeakValueDictionary

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class UpdateListener:
    """Who wants to hear of updates derives from this, and says :meth:`listen`; it is forgotten with its last owner."""

    def listen(self) -> None:
        """Hear of updates from now on, in the order in which listeners began."""
        if not _REGISTERED:
            _REGISTERED.append(register_optimizer_step_pre_hook(_before))
            _REGISTERED.append(register_optimizer_step_post_hook(_after))
        _LISTENERS.setdefault(id(self), self)

    def be_deaf(self) -> None:
        """Hear of no more."""
        _LISTENERS.pop(id(self), None)

    def before_update(self, optimizer: Optimizer) -> None:
        """An optimizer is about to make a step."""

    def after_update(self, optimizer: Optimizer) -> None:
        """It has made it."""


_LISTENERS: WeakValueDictionary[int, UpdateListener] = WeakValueDictionary()
_REGISTERED: list[Any] = []


def _before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for listener in list(_LISTENERS.values()):
        listener.before_update(optimizer)


def _after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for listener in list(_LISTENERS.values()):
        listener.after_update(optimizer)
