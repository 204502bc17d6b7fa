"""What a power cut may take from a local lake: at most the commit that was just being written.

The Delta writer does not wait until a file is on the disk, so a machine that stops can leave it
empty or cut off, seconds after its commit. Here each commit is on the disk before the next one
begins. So only the newest commit of a table can be damaged, and nothing builds on it: when the next
run takes the lock that the stopped one held, it takes that commit back.

An object of S3 is on disks when its writer is answered.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from recsys.lake import commits
from recsys.temporary import sync

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TAKEN_BACK = "_commit_damaged_{}.tmp"
"""The name that a damaged entry gets, until a maintenance removes what killed runs left."""
_log = logging.getLogger(__name__)


def sync_commits(table: Path, after: int, newest: int) -> None:
    """Have the commits of a table after a version, and the files that they add, on the disk.

    Raises:
        OSError: the disk refuses.
    """
    if newest == after:
        return
    log = table / "_delta_log"
    folders = {table, log} if after >= 0 else {table.parent, table, log}
    for version in range(after + 1, newest + 1):
        entry = log / f"{version:020}.json"
        for file in _added(table, _actions(entry)):
            sync(file)
            folders.add(file.parent)
        sync(entry)
    for folder in folders:
        sync(folder)


def take_back_damaged(lake: Path) -> None:
    """Take back the newest commit of each table where a power cut has damaged it.

    Call it where the run before this one did not end. The entry is not deleted, but renamed.

    Raises:
        OSError: the lake can't be read or written.
    """
    for log in lake.glob("*/_delta_log"):
        for damaged in _damaged_checkpoint(log):
            damaged.unlink()
        newest = max(log.glob("[0-9]*.json"), default=None)
        if newest is not None and _is_damaged(newest):
            newest.rename(log / _TAKEN_BACK.format(newest.stem))
            sync(log)
            _log.warning(
                "%s: the machine stopped while version %d was written; it is taken back, and "
                "what wrote it is done again",
                *(log.parent, int(newest.stem)),
            )


def _damaged_checkpoint(log: Path) -> list[Path]:
    """Return the newest checkpoint and what points to it, where it is not whole.

    The log that it sums up is still there then; see `commits.create_checkpoint`.
    """
    pointer, newest = log / "_last_checkpoint", max(log.glob("*.checkpoint*.parquet"), default=None)
    is_whole = newest is None or _ends_with(newest, b"PAR1")
    if is_whole and (not pointer.exists() or _ends_with(pointer, b"}")):
        return []
    return [path for path in (pointer, None if is_whole else newest) if path and path.exists()]


def _is_damaged(entry: Path) -> bool:
    """Say whether an entry of a log, or a file that it adds, is not whole."""
    try:
        actions = _actions(entry)
    except ValueError:
        return True
    # The Delta writer writes the transactions of a commit last, and each of ours has one.
    is_ours = any(commits.WRITER in action.get("commitInfo", {}) for action in actions)
    if not actions or (is_ours and "txn" not in actions[-1]):
        return True
    added = _added(entry.parent.parent, actions)
    return any(_size(file) != size for file, size in added.items())


def _actions(entry: Path) -> list[dict[str, Any]]:
    """Return the actions of an entry of a log.

    Raises:
        ValueError: it is not JSON.
    """
    return [json.loads(line) for line in entry.read_bytes().splitlines()]


def _added(table: Path, actions: Iterable[dict[str, Any]]) -> dict[Path, int]:
    """Return the files that actions add, and their sizes in bytes; not those of other tables."""
    added = (action["add"] for action in actions if "add" in action)
    names = ((unquote(add["path"]), add["size"]) for add in added)
    return {table / name: size for name, size in names if "://" not in name and name[0] != "/"}


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return -1


def _ends_with(file: Path, mark: bytes) -> bool:
    return file.read_bytes().rstrip().endswith(mark)
