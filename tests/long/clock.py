"""A clock that a test moves, for the processes that it starts: clock.c is loaded into them.

A moment passes as long as it does; `Clock.move` then goes ahead, for all processes at once, as when
a machine slept. Durations (the monotonic clock) and the times of files stay the machine's.
libfaketime was tried: a Prefect server under it keeps a core busy, and its database answers 503.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

COMPILER = shutil.which("cc")


class Clock:
    """The clock of some processes.

    Args:
        folder: keeps what is loaded into them.
        moment: what it shows first; in the past, so that no wait for a moment takes for ever.
    """

    def __init__(self, folder: Path, moment: datetime) -> None:
        self._file, library = folder / "clock", folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        assert COMPILER
        command = [COMPILER, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(library), "MOVED_CLOCK": str(self._file)}
        self._file.touch()
        self.move(moment)

    def now(self) -> datetime:
        """Return what it shows."""
        return datetime.now(UTC) + self._moved

    def move(self, moment: datetime) -> None:
        """Let it show another moment; every process sees it at once."""
        self._moved = timedelta(seconds=round((moment - datetime.now(UTC)).total_seconds()))
        with self._file.open("r+b") as file:
            file.write(struct.pack("l", int(self._moved.total_seconds())))
