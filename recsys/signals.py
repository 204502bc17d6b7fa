"""Requests to stop: SIGTERM, Ctrl-C, a closed terminal.

Python reports one by an exception in the main thread, which does not always come through: DuckDB
makes a plain RuntimeError of one that interrupts a query. Nor is the handler always ours: Prefect
has its own while a flow runs. So the signals are read off Python's wakeup descriptor, which is
told of each before any handler is.

What runs in C may not let Python call a handler for as long as it runs: DuckDB looks at signals
between two pieces of a query, and a piece may take hours. A thread interrupts it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from contextlib import contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_EXITS = (signal.SIGTERM, signal.SIGHUP)  # Ctrl-C has Python's own KeyboardInterrupt
_INTERRUPT_EVERY, _JOIN_SECONDS = 0.2, 5.0
# Before the first interrupt: where Python gets to call its handlers, they end the query themselves.
_GRACE_SECONDS = 1.0
_arrived: socket.socket | None = None
_is_overdue = False
_interrupts: list[Callable[[], object]] = []


def stop_signal() -> signal.Signals | None:
    """Return the first signal that asked this process to stop; None where nobody watches."""
    return None if _is_overdue else _first_stop()


def is_overdue() -> bool:
    """Say whether this process stops because a `time_limit` has passed."""
    return _is_overdue


def is_stopping() -> bool:
    """Say whether this process has been asked to stop, or has to because of a `time_limit`."""
    return _is_overdue or _first_stop() is not None


def _first_stop() -> signal.Signals | None:
    if _arrived is None:
        return None
    try:
        numbers = _arrived.recv(4096, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    stops = (number for number in numbers if number in (*_EXITS, signal.SIGINT))
    return next(map(signal.Signals, stops), None)


@contextmanager
def interruptible(interrupt: Callable[[], object]) -> Iterator[None]:
    """Have a request to stop that comes within the block call a function, from another thread.

    It is called until the block ends: the first call may come before there is what it interrupts.
    """
    _interrupts.append(interrupt)
    try:
        yield
    finally:
        _interrupts.remove(interrupt)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop what runs in the block after some seconds, as SIGTERM does; see `is_overdue`.

    Nothing happens where nobody watches signals, or where SIGTERM would end the process at once.
    """

    def stop() -> None:
        global _is_overdue
        _is_overdue = True
        os.kill(os.getpid(), signal.SIGTERM)

    if _arrived is None or signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        yield
        return
    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _interrupt_at_stop(arrived: socket.socket) -> None:
    """Wait for a request to stop, then interrupt what was `interruptible` at that time."""
    while True:
        select.select([arrived], [], [])
        try:
            if not arrived.recv(1, socket.MSG_PEEK):
                return  # the other end is closed: nobody watches any more
        except BlockingIOError:
            continue
        if _arrived is not arrived:
            return
        if _first_stop():
            break
        time.sleep(_INTERRUPT_EVERY)  # another signal, which stays to be read
    running = list(_interrupts)
    time.sleep(_GRACE_SECONDS)
    while _arrived is arrived and any(interrupt in _interrupts for interrupt in running):
        for interrupt in running:
            if interrupt in _interrupts:
                interrupt()
        time.sleep(_INTERRUPT_EVERY)


@contextmanager
def watch_signals() -> Iterator[None]:
    """Let `stop_signal` know of signals while the block runs, whoever handles them.

    Nothing happens outside the main thread, or inside another such block.
    """
    global _arrived, _is_overdue
    if _arrived is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived, wakeup = socket.socketpair()
    with arrived, wakeup:
        arrived.setblocking(False)
        wakeup.setblocking(False)
        before = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        _arrived, _is_overdue = arrived, False
        thread = threading.Thread(target=_interrupt_at_stop, args=(arrived,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            _arrived, _is_overdue = None, False
            signal.set_wakeup_fd(before)
            wakeup.close()
            thread.join(_JOIN_SECONDS)


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
