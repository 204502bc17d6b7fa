"""Requests to stop: SIGTERM, Ctrl-C, a closed terminal.

Python reports one by an exception in the main thread, which does not always come through: DuckDB
makes a plain RuntimeError of one that interrupts a query. Nor is the handler always ours: Prefect
has its own while a flow runs. So the signals are read off Python's wakeup descriptor, which is
told of each before any handler is.
"""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_EXITS = (signal.SIGTERM, signal.SIGHUP)  # Ctrl-C has Python's own KeyboardInterrupt
_arrived: socket.socket | None = None


def stop_signal() -> signal.Signals | None:
    """Return the first signal that asked this process to stop; None where nobody watches."""
    if _arrived is None:
        return None
    try:
        numbers = _arrived.recv(4096, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    stops = (number for number in numbers if number in (*_EXITS, signal.SIGINT))
    return next(map(signal.Signals, stops), None)


@contextmanager
def watch_signals() -> Iterator[None]:
    """Let `stop_signal` know of signals while the block runs, whoever handles them.

    Nothing happens outside the main thread, or inside another such block.
    """
    global _arrived
    if _arrived is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived, wakeup = socket.socketpair()
    with arrived, wakeup:
        arrived.setblocking(False)
        wakeup.setblocking(False)
        before = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        _arrived = arrived
        try:
            yield
        finally:
            _arrived = None
            signal.set_wakeup_fd(before)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Leave the block by an exception at such a signal, so that a run can record its end.

    Raises:
        SystemExit: with 128 + the signal's number, whatever became of the exception on its way;
            not where the block ended well all the same.
    """
    for number in _EXITS:
        if signal.getsignal(number) is signal.SIG_DFL:  # rather than ignored, as nohup does
            signal.signal(number, _exit)
    with watch_signals():
        try:
            yield
        except BaseException as error:
            stopped = stop_signal()
            if not stopped or (isinstance(error, SystemExit) and not error.code):
                raise
            link: BaseException | None = error
            while link:  # Prefect keeps them, their frames keep DuckDB alive: it complains at exit
                clear_frames(link.__traceback__)
                link = link.__cause__ or link.__context__
            raise SystemExit(128 + stopped) from None


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    raise SystemExit(128 + number)
