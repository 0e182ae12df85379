"""SIGTERM and SIGHUP as Ctrl-C, for as long as runs are under way."""

import os
import signal

import pytest

from mmkd_plugin.experiments import interruptible


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_it_interrupts_and_leaves_no_handler(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before == signal.SIG_DFL


def test_what_is_handled_already_stays_so():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
