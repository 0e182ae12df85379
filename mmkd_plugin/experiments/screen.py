"""Progress on a terminal or in a file: a line for each event, and where things stand."""

import shutil
import sys
import time

_EVERY = 60.0  # seconds between two such lines in a file


class Screen:
    """Prints events as lines, and on a terminal the present state below them, in place.

    Args:
        seconds: Between two lines of state where the output is no terminal.
    """

    def __init__(self, seconds: float = _EVERY) -> None:
        self._terminal = sys.stdout.isatty()
        self._seconds = seconds
        self._last = time.monotonic()
        self._state = ''

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._state:
            print('\r' + ' ' * len(self._state) + '\r', end='')
            self._state = ''
        print(text, flush=True)

    def show(self, state: str) -> None:
        """Where things stand, in one line."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print('\r' + state[:width].ljust(len(self._state)), end='', flush=True)
            self._state = state[:width]
        elif time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
            print(state, flush=True)


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(42.4), duration(61), duration(3700), duration(200000)
        ('42 s', '1 min', '1 h 2 min', '2 d 8 h')
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
