"""The lock that keeps two runs from writing to one local lake at the same time."""

from __future__ import annotations

import fcntl
import logging
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from recsys.errors import LakeError
from recsys.lake.faults import explain_delta_errors
from recsys.signals import is_stopping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK = ".lock"
_WAIT_SECONDS, _STOP_SECONDS = 3600.0, 10.0
_log = logging.getLogger(__name__)


class WriteLock:
    """The lock of a lake, which a run holds and lets go for a while.

    Args:
        folder: the lake's; None on S3, where nothing can be locked.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._stack = ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock while the block runs; wait for it first.

        Raises:
            LakeError: another run holds it for too long, or the folder can't be written.
        """
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

    def _take(self) -> None:
        if self._folder is not None:
            with explain_delta_errors(f"write {self._folder}", is_local=True):
                self._stack.enter_context(_folder_lock(self._folder))


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Keep every other process out of this block for a folder; wait for one that is in it.

    Raises:
        LakeError: the other one did not end within an hour, or within seconds where this process
            was asked to stop, and will soon be killed.
        OSError: the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The kernel lets go of the lock when the process ends, however it ends.
    wait_seconds = _STOP_SECONDS if is_stopping() else _WAIT_SECONDS
    with (folder / _LOCK).open("a") as lock:
        deadline, is_told = time.monotonic() + wait_seconds, False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LakeError(
                        f"another run has been writing to {folder} for over {wait_seconds:.0f} s; "
                        "wait for it to end, or end it, and run again",
                        transient=True,
                    ) from None
                if not is_told:
                    _log.warning("waiting for another run that writes to %s", folder)
                    is_told = True
                time.sleep(0.2)
        yield
