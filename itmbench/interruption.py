"""Ctrl-C and SIGTERM as one interruption, which is noticed even if Python drops its exception."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_arrived = False
"""Not a `threading.Event`: a handler that runs while the main thread holds its lock would wait forever."""
_process = 0
"""The process that is to be interrupted; loader processes that it forks have the same handler."""


@contextmanager
def watched(*numbers: signal.Signals) -> Iterator[None]:
    """While it lasts, these signals raise KeyboardInterrupt in this process, and are remembered.

    Outside the main thread, or within another ``watched``, it does nothing; nor does it touch an ignored signal, as
    SIGINT is in a background job of a shell.
    """
    global _arrived, _process
    if _process == os.getpid() or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    _arrived = False
    _process = os.getpid()
    for number in before:
        signal.signal(number, _stop)
    report = sys.unraisablehook

    def report_others(dropped: Any) -> None:
        if dropped.exc_type is not KeyboardInterrupt:  # of a destructor; the flag is noticed soon
            report(dropped)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
        _process = 0


def arrived(patience: float = 0.0) -> bool:
    """Whether a watched signal has arrived, or does so within some seconds."""
    if _process != os.getpid():
        return False
    until = time.monotonic() + patience
    while not _arrived and time.monotonic() < until:
        time.sleep(0.01)
    return _arrived


def require_none() -> None:
    """Raise KeyboardInterrupt if a watched signal has arrived: Python drops the exception of one in a destructor."""
    if arrived():
        raise KeyboardInterrupt


def _stop(number: int, frame: Any) -> None:
    global _arrived
    if os.getpid() == _process:
        _arrived = True
    elif number == signal.SIGTERM:
        os._exit(128 + number)
    raise KeyboardInterrupt
