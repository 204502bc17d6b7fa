"""The lock that keeps two runs from writing to one local lake at the same time."""

from __future__ import annotations

import fcntl
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recsys.errors import LakeError
from recsys.signals import is_stopping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK = ".lock"
_WAIT_SECONDS, _STOP_SECONDS = 3600.0, 10.0
_log = logging.getLogger(__name__)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
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
