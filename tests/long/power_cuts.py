"""A machine that stops: a process is killed, and what it had not synced is lost, or cut off.

writes.c, loaded into the process, tells which files it makes, renames and syncs, and kills it when
it has just renamed or linked one: then the most is at stake. After that each new file loses, by a
seed, nothing of what was not synced, all of it, or its end: ext4 does so, where the name of a file
is on the disk before its content. Of the last names that were given, after which nothing was
synced, some are gone.

What it does not show: names that come to the disk in another order, as other file systems may do
it; a deleted or replaced file that comes back; a part of an older file written over; a disk that
says that it has synced and has not.
"""

from __future__ import annotations

import multiprocessing.forkserver
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flows import nights

COMPILER = shutil.which("cc")


@contextmanager
def told_writes(root: Path) -> Iterator[None]:
    """Let the processes that are started in this block tell what they write below a folder.

    They are forked from one server, which is started again for it.
    """
    assert COMPILER
    source, library = Path(__file__).with_name("writes.c"), root / "writes.so"
    command = [COMPILER, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    server = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    server._stop()
    told = {"LD_PRELOAD": str(library), "WRITES_ROOT": str(root)}
    os.environ.update(told)
    try:
        nights.server()
        server.ensure_running()
        for name in told:
            del os.environ[name]
        yield
    finally:
        server._stop()


def cut_power(log: Path, draw: random.Random) -> int:
    """Lose what a killed process had not synced; return how many files are otherwise than before.

    Args:
        log: what the process told.
        draw: decides what becomes of each.
    """
    files, names = _unsynced(log)
    log.unlink()
    changed = 0
    for name, synced in files:
        size = name.stat().st_size
        kept = draw.choice([size, synced, draw.randrange(synced, size + 1)])
        os.truncate(name, kept)
        changed += kept < size
    for name in names[draw.randrange(len(names) + 1) :]:
        name.unlink()
        changed += 1
    return changed


def _unsynced(log: Path) -> tuple[list[tuple[Path, int]], list[Path]]:
    """Return the files that are not synced, with the bytes that are, and the last names given."""
    files: dict[Path, list[int]] = {}  # how many bytes are synced, shared by all names
    names: list[Path] = []
    for line in log.read_text().splitlines():
        what, one, other = line.split("\t")
        name = Path(one)
        if what in "CT":
            files[name] = [0]
            if what == "C":
                names.append(name)
        elif what == "S":
            names.clear()
            if name in files:
                files[name][0] = int(other)
        elif what == "D":
            files.pop(name, None)
        elif name in files:  # M, R, L
            files[Path(other)] = files[name] if what == "L" else files.pop(name)
            if what != "R":
                names.append(Path(other))
    unsynced = [
        (name, synced)
        for name, (synced,) in files.items()
        if name.is_file() and name.stat().st_size > synced
    ]
    return unsynced, [name for name in dict.fromkeys(names) if name.is_file()]
