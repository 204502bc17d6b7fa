"""Folders for what is needed while something runs, and no longer."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX, _HELD = "recsys-", ".held"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder where the system keeps temporary files (TMPDIR); it goes with the block.

    A process that is killed leaves its folders behind: whoever makes the next one removes them.
    """
    _sweep()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as made:
        folder = Path(made)
        arriving = folder / f"{_HELD}.arriving"
        with arriving.open("w") as lock:  # the kernel lets go of it when the process ends
            fcntl.flock(lock, fcntl.LOCK_EX)
            arriving.rename(folder / _HELD)  # locked before anybody can see it
            yield folder


def _sweep() -> None:
    for held in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_HELD}"):
        with suppress(OSError), held.open() as lock:  # held, somebody else's, or gone just now
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(held.parent)
