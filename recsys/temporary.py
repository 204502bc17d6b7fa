"""Temporary folders, and files and folders that take their place whole, in one step.

Whoever makes a temporary folder locks it with flock: the kernel lets go of the lock when the
process ends, however it ends. A folder without a lock was left by a killed process, and whoever
makes the next one beside it removes it. The lock is on the folder itself: a folder holds nothing
but what its user wrote into it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "recsys-temporary-"
_BESIDE = f".{_PREFIX}"
"""Of the folder beside a target in which the target's next content is written."""
_PREVIOUS = ".previous"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux, see renameat2(2)
# What a file system or a kernel says that can't exchange two folders, or sync one.
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV}


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder where the system keeps temporary files (TMPDIR); it goes with the block."""
    with _locked_folder(Path(tempfile.gettempdir()), _PREFIX) as folder:
        yield folder


@contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Give a path to write a file to; it takes the place of ``target`` when the block ends well.

    A reader finds the previous file or the new one, whole, and so does who looks after a power
    cut. Where the block raises, the previous file stays.

    Raises:
        OSError: the file can't be written.
    """
    with _beside(target) as new:
        yield new
        sync(new)
        os.replace(new, target)
        sync(target.parent)


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of ``target`` when the block ends well.

    As `replace_file`. The two folders are exchanged in one step, so that a reader always finds one.
    Where the file system can't exchange folders (NFS), the previous one is moved aside for an
    instant. It is put back where the new one can't take its place, and by the next writer if this
    process was killed in that instant.

    Raises:
        OSError: the folder can't be written.
    """
    with _beside(target) as new:
        new.mkdir()
        yield new
        for folder, _, names in os.walk(new):
            for name in names:
                sync(Path(folder, name))
            sync(Path(folder))
        _move_folder(new, target)
        sync(target.parent)


def leftover_folders(parent: Path) -> list[Path]:
    """Return the temporary folders in a folder that killed processes left: nobody locks them."""
    left = []
    for folder in parent.glob(f"{_BESIDE}*"):
        with suppress(OSError):  # in use, or gone just now
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.append(folder)
            finally:
                os.close(lock)
    return left


def remove_leftover_folders(parent: Path) -> None:
    """Remove the temporary folders of killed processes in a folder, as the next writer would."""
    _sweep(parent, _BESIDE)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a path of the target's name in a temporary folder beside it, where a rename suffices."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked_folder(target.parent, _BESIDE) as folder:
        yield folder / target.name


def _move_folder(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    try:
        _exchange(new, target)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        previous = new.parent / _PREVIOUS / target.name
        previous.parent.mkdir()
        target.rename(previous)
        new.rename(target)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change names in one step.

    Raises:
        OSError: ENOSYS where this system has no such call.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder that nobody sweeps while the block runs, and that goes with the block."""
    _sweep(parent, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):  # swept before it was locked: make another
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                break
            os.close(lock)
    try:
        yield folder
    finally:
        with suppress(OSError):  # what is left is swept
            _restore_previous(folder, prefix)
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(parent: Path, prefix: str) -> None:
    """Remove our folders whose processes were killed.

    Another user's folder is left alone: in a TMPDIR that users share, anybody can make one of this
    name, with anything in it.
    """
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # in use, or gone just now
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _restore_previous(folder, prefix)
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


def _restore_previous(folder: Path, prefix: str) -> None:
    """Put what `_move_folder` moved aside back beside the folder, where nothing took its place."""
    aside = folder / _PREVIOUS
    if prefix != _BESIDE or aside.is_symlink():
        return
    for previous in aside.glob("*"):
        target = folder.parent / previous.name
        if not target.exists():
            previous.rename(target)
