"""Child processes that end when their parent does, however that ends, `kill -9` included.

The parent locks a file for as long as it lives; the kernel lets go of the lock when it ends. A
child waits for this lock in a thread. A child also locks a file of its own, with its process id and
start time in it, so that the next start can end a child that goes on all the same, and no other
process that was given its number.

This file is run by its path, too: ``children.py MODULE ARGUMENT...`` runs a server as such a child.
It needs nothing but the standard library, and imports nothing from the working directory.
"""

from __future__ import annotations

import fcntl
import gc
import os
import runpy
import signal
import sys
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PARENT, _FOLDER = "RECSYS__PARENT_LOCK", "RECSYS__CHILDREN"
_GRACE_SECONDS, _KILL_SECONDS = 20.0, 5.0
_locks: list[IO[str]] = []  # open, and so locked, for as long as this process lives


@contextmanager
def parent_of_children(folder: Path) -> Iterator[None]:
    """Make the children started within the block end with this process.

    Args:
        folder: keeps the lock of this process and of its children.
    """
    name = folder / f"parent-{uuid.uuid4().hex}.lock"
    with _locked(name) as lock:
        _locks.append(lock)  # this process is no child of its own
        os.environ |= {_PARENT: str(name), _FOLDER: str(folder)}
        try:
            yield
        finally:
            _locks.remove(lock)
            del os.environ[_PARENT], os.environ[_FOLDER]
            name.unlink(missing_ok=True)


def end_with_parent() -> None:
    """End this process when its parent ends: by SIGTERM, and 20 seconds later by SIGKILL.

    Nothing happens in a process that no `parent_of_children` started.
    """
    if _locks or not (name := os.environ.get(_PARENT)):
        return
    try:
        _locks.append(_locked(Path(os.environ[_FOLDER]) / f"child-{os.getpid()}.lock"))
        parent = open(name)  # noqa: SIM115 - open for as long as this process lives
        fcntl.flock(parent, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
        return
    except FileNotFoundError:
        pass
    os._exit(128 + signal.SIGTERM)  # the parent ended before this process could do anything


def _end_after(parent: IO[str]) -> None:
    fcntl.flock(parent, fcntl.LOCK_SH)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def end_leftovers(folder: Path) -> int:
    """End the children that a dead parent left, wait for their end, and return how many there were.

    Call it only where no other parent can live: a file that nobody locks is of a dead process, and
    is removed.
    """
    for file in folder.glob("parent-*.lock"):
        file.unlink()
    living = {file: pid for file in folder.glob("child-*.lock") if (pid := _holder(file))}
    for number, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        for file, pid in living.items():
            with suppress(ProcessLookupError, PermissionError):  # it is gone, or not ours
                if _holder(file):
                    os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while any(map(_holder, living)) and time.monotonic() < deadline:
            time.sleep(0.1)
    return len(living)


def collect_garbage_in_a_thread() -> None:
    """Collect the garbage of this process in a thread of its own, never on an event loop.

    Without it a Prefect server on SQLite stands still for a minute, now and then. After an error
    SQLAlchemy leaves a cursor open, as garbage. To close it, SQLite waits for the cursor's
    connection; that may wait in turn for a transaction which the event loop alone can end.
    """
    gc.disable()
    threading.Thread(target=_collect_garbage, daemon=True).start()


def _collect_garbage() -> None:
    """Once a second, collect what Python would have collected by now."""
    while True:
        time.sleep(1)
        counts = zip(gc.get_count(), gc.get_threshold(), strict=True)
        if due := [age for age, (count, threshold) in enumerate(counts) if count > threshold]:
            gc.collect(max(due))


def _holder(file: Path) -> int | None:
    """Return the process that wrote and locks a file; a file that none locks is removed.

    Where a file is locked and its writer is gone, another process has inherited the lock: which one
    is not known.
    """
    try:
        with file.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, _, start_time = lock.read().partition(" ")
                return int(pid) if start_time == _start_time(int(pid)) else None
            file.unlink()
    except FileNotFoundError:
        pass
    return None


def _start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot: "" without it or without /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(b")")[2].split()[19].decode()  # field 22; a name may hold spaces


def _locked(name: Path) -> IO[str]:
    """Make a file that names our process; it is locked before anybody can see it."""
    arriving = name.with_suffix(f".{uuid.uuid4().hex}")
    lock = arriving.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(f"{os.getpid()} {_start_time(os.getpid())}".rstrip())
    lock.flush()
    arriving.rename(name)
    return lock


if __name__ == "__main__":
    end_with_parent()
    collect_garbage_in_a_thread()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
