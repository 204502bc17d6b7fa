"""The lock that keeps two runs from writing to one lake at the same time."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from recsys.errors import LakeError
from recsys.lake.faults import explain_delta_errors
from recsys.lake.power_cuts import take_back_damaged
from recsys.signals import is_stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_LOCK = ".lock"
_WAIT_SECONDS, _STOP_SECONDS = 3600.0, 10.0
_log = logging.getLogger(__name__)


class Exclusion(Protocol):
    """What keeps other runs from writing to a lake, while a block runs."""

    def held(self, holder: str, wait: Callable[[str], None]) -> AbstractContextManager[None]:
        """Keep other runs out; ``wait`` for those that are in, and name the ``holder`` to them."""

    def require(self) -> None:
        """Make sure, before a write, that other runs are still kept out where they have been."""


class WriteLock:
    """The lock of a lake, which a run holds and lets go for a while.

    Args:
        exclusion: of the lake's kind of storage; None where somebody else keeps runs apart.
        root: the lake's, for messages.
    """

    def __init__(self, exclusion: Exclusion | None, root: str) -> None:
        self._exclusion, self._root = exclusion, root
        self._stack = ExitStack()
        self._holder = ""

    @contextmanager
    def held(self, holder: str) -> Iterator[None]:
        """Hold the lock while the block runs; wait for it first.

        Args:
            holder: the run, as those that wait are told of it.

        Raises:
            LakeError: another run holds it for too long, or the lake can't be written.
        """
        self._holder = holder
        with ExitStack() as self._stack:
            self._take()
            yield

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let the lock go while this block, inside that of `held`, runs; then wait for it again.

        Raises:
            LakeError: as `held`.
        """
        self._stack.close()
        try:
            yield
        finally:
            self._take()

    def require(self) -> None:
        """Make sure, before a write, that the lock is held where it has been taken.

        Raises:
            LakeError: another run has it by now.
        """
        if self._exclusion is not None:
            self._exclusion.require()

    def _take(self) -> None:
        if self._exclusion is not None:
            wait = _Patience(self._root)
            self._stack.enter_context(self._exclusion.held(self._holder, wait))


class _Patience:
    """Waits for another run; says so once, and gives up after an hour.

    A process that was asked to stop will soon be killed, and gives up after seconds.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._seconds = _STOP_SECONDS if is_stopping() else _WAIT_SECONDS
        self._deadline = time.monotonic() + self._seconds
        self._is_told = False

    def __call__(self, other: str) -> None:
        if time.monotonic() > self._deadline:
            raise LakeError(
                f"another run ({other}) has been writing to {self._root} for over "
                f"{self._seconds:.0f} s; wait for it to end, or end it, and run again",
                transient=True,
            )
        if not self._is_told:
            _log.warning(
                "another run (%s) is writing to %s; waiting up to %.0f s",
                *(other, self._root, self._seconds),
            )
            self._is_told = True
        time.sleep(0.2)


class FolderLock:
    """A lock on a file in a folder. The kernel lets go of it when its process ends, however.

    The file names the holder until it ends well. Who finds another's name takes back what a power
    cut may have damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: os.stat_result | None = None  # the lock's, while it is held

    @contextmanager
    def held(self, holder: str, wait: Callable[[str], None]) -> Iterator[None]:
        """Keep every other process out of this block for the folder; see `Exclusion`.

        Raises:
            LakeError: the folder can't be written, or what ``wait`` raises.
        """
        with ExitStack() as stack:
            with explain_delta_errors(f"write {self._folder}", is_local=True):
                # It will hold rows of users, so that it is for this user alone at first.
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = stack.enter_context((self._folder / _LOCK).open("a+b", buffering=0))
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    lock.seek(0)
                    wait(lock.read().decode() or "it says no name")
            with explain_delta_errors(f"write {self._folder}", is_local=True):
                lock.seek(0)
                if lock.read():  # the run before did not end
                    take_back_damaged(self._folder)
                lock.truncate(0)
                lock.write(f"{holder}, process {os.getpid()}".encode())
                os.fsync(lock)
            self._file = os.fstat(lock.fileno())
            try:
                yield
            finally:
                self._file = None
                with suppress(OSError):  # then the next run looks for damage, and finds none
                    lock.truncate(0)

    def require(self) -> None:
        """Make sure that the folder is still there: a lock of the kernel's is never lost.

        Without it, a commit would begin a table anew in which the earlier ones are missing.

        Raises:
            LakeError: the folder was removed, or another one is in its place.
        """
        if self._file is None:
            return
        try:
            is_there = os.path.samestat(self._file, (self._folder / _LOCK).stat())
        except OSError:
            is_there = False
        if not is_there:
            raise LakeError(
                f"{self._folder} was removed or replaced while this run wrote to it; nothing more "
                "was written. Put it back, then run again"
            )
