"""Progress on a terminal or in a file: a line for each event, and where things stand."""

import shutil
import sys
import time
from collections.abc import Callable


class Screen:
    """Prints events as lines, and the present state: on a terminal below them, in place, else as a line now and then.

    Args:
        seconds: Between two states; default: 1 on a terminal, else 60.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._terminal = sys.stdout.isatty()
        self._seconds = (1.0 if self._terminal else 60.0) if seconds is None else seconds
        self._last = time.monotonic()
        self._state = ''

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._state:
            print('\r' + ' ' * len(self._state) + '\r', end='')
            self._state = ''
        print(text, flush=True)

    def show(self, state: Callable[[], str]) -> None:
        """Where things stand, in one line, if it is time for it."""
        if time.monotonic() - self._last < self._seconds:
            return
        self._last = time.monotonic()
        if not self._terminal:
            print(state(), flush=True)
            return
        text = state()[: shutil.get_terminal_size().columns - 1]
        print('\r' + text.ljust(len(self._state)), end='', flush=True)
        self._state = text


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(42.4), duration(61), duration(3700), duration(200000)
        ('42 s', '1 min', '1 h 2 min', '2 d 7 h')
    """
    if seconds < 60:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 60:
        return f'{minutes} min'
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f'{hours} h {minutes} min'
    return f'{hours // 24} d {hours % 24} h'
