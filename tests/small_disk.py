"""A small file system in memory, which can be full or read-only. To mount one takes root."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int = 64 << 20) -> Iterator[Path]:
    """Mount one of so many bytes on a folder, which is made; the test is skipped where none can."""
    folder.mkdir()
    _mount(folder, f"size={size}", "-t", "tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def full(disk: Path, room: int = 0) -> Iterator[None]:
    """Leave so many bytes of it while the block runs."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - room))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Let nobody write to it while the block runs, root neither."""
    _mount(disk, "remount,ro")
    try:
        yield
    finally:
        _mount(disk, "remount,rw")


def _mount(disk: Path, options: str, *more: str) -> None:
    command = ["mount", *more, "-o", options, "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system in memory can't be mounted: {done.stderr}")
