"""A process as others know it, so that they can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def this_process() -> str:
    """Return host, boot of the host, number and start of this process."""
    return " ".join((socket.gethostname(), _boot(), str(os.getpid()), _start(os.getpid())))


def has_ended(process: str) -> bool | None:
    """Say whether what `this_process` once returned has ended; None where it is of another host."""
    try:
        host, boot, pid, start = process.split(" ")
        number = int(pid)
    except ValueError:
        return None
    if host != socket.gethostname():
        return None
    return boot != _boot() or not _lives(number) or start != _start(number)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _boot() -> str:
    """Return an id of the host's boot; "-" where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "-"


def _start(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; "-" where that can't be known.

    A dead process whose parent has not asked for its end yet has not started either.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "-"
    fields = stat.rpartition(b")")[2].split()  # a name may hold spaces
    return "-" if fields[0] in (b"Z", b"X") else fields[19].decode()
