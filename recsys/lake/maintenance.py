"""Upkeep of the Delta tables: small files merged, old versions and their log removed.

Nothing here changes a row. Each function is one commit or none, and may be killed and run again.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from recsys.errors import LakeError
from recsys.lake import commits, object_store
from recsys.temporary import leftover_folders, remove_leftover_folders

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from deltalake import DeltaTable

    from recsys.lake.tables import Lake

_TARGET_BYTES = 100 << 20
"""Smaller files of a table are merged into files of about this size."""
SCORED = "scoring"
"""The folder of scores that a night keeps until its lists are published."""
REPLAYED = "replayed"
"""The folder of the lakes of replays that go on, or were killed."""
_DELETING = {"DELETE", "UPDATE"}  # operations of Delta
_LOG_RETENTION = "delta.logRetentionDuration"


@dataclass(frozen=True)
class Size:
    """Files and what they take.

    Attributes:
        files: how many.
        bytes: together.
    """

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Size) -> Size:
        """Return both together."""
        return Size(self.files + other.files, self.bytes + other.bytes)


def compact(lake: Lake, table: str, *, dry_run: bool) -> Size:
    """Merge the small files of each partition, in order, in one commit; return what was merged.

    The merged files stay on disk until `remove_old_versions` finds them old enough: older versions
    and open readers need them.

    Raises:
        LakeError: the table can't be read or written, or another run has rewritten the same files
            at the same time; then nothing has changed.
    """
    small = _small_files(lake.open(table))
    if small.files and not dry_run:
        with lake.writing(table) as target:
            target.optimize.compact(
                target_size=_TARGET_BYTES, post_commithook_properties=commits.NO_HOOKS
            )
    return small


def _small_files(table: DeltaTable) -> Size:
    """Return the files that have another small one in their partition to be merged with."""
    names = table.metadata().partition_columns
    sizes: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    for file in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        if file["size_bytes"] < _TARGET_BYTES:
            sizes[tuple(file[f"partition.{name}"] for name in names)].append(file["size_bytes"])
    merged = [size for sizes in sizes.values() if len(sizes) > 1 for size in sizes]
    return Size(len(merged), sum(merged))


def remove_old_versions(lake: Lake, table: str, retention: timedelta, *, dry_run: bool) -> Size:
    """Delete the data files that no version of the last ``retention`` needs, and strangers.

    A stranger is a file that the log does not name, such as a killed run leaves it.

    Raises:
        LakeError: the table can't be read, or its files can't be deleted.
    """
    hours = int(retention.total_seconds() // 3600)
    with lake.writing(table) as target:
        names = _vacuum(target, hours, dry_run=True)
        sizes = _sizes(lake, table, names)
        if names and not dry_run:
            _vacuum(target, hours, dry_run=False)
    if lake.is_local and not dry_run:
        for folder in {Path(lake.uri(table, unquote(name))).parent for name in names}:
            with suppress(OSError):  # it still holds files
                folder.rmdir()
    return sizes


def _vacuum(table: DeltaTable, hours: int, *, dry_run: bool) -> list[str]:
    return table.vacuum(
        hours,
        dry_run=dry_run,
        enforce_retention_duration=False,  # the settings bound it
        full=True,
        post_commithook_properties=commits.NO_HOOKS,
    )


def _sizes(lake: Lake, table: str, names: Iterable[str]) -> Size:
    """Return the sizes of a table's files by their names relative to it."""
    names = list(names)
    if not names:
        return Size()
    if lake.is_local:
        return sum((size_on_disk(Path(lake.uri(table, unquote(name)))) for name in names), Size())
    stored = object_store.find(lake.uri(table, "**"), lake.storage)
    sizes = {one.key: one.size or 0 for one in stored}
    return Size(len(names), sum(sizes.get(lake.uri(table, name), 0) for name in names))


def shorten_log(lake: Lake, table: str, retention: timedelta) -> None:
    """Sum the log up in a checkpoint; delete what only versions older than ``retention`` need.

    A log of few commits is left as it is, since on S3 it takes fewer requests to read than a
    checkpoint; unless rows were deleted, of which it may tell.
    Names of transactions are in the checkpoint, and notes of commits are not: whoever needs a note
    has to read it before, see :func:`recsys.ingest.commit.recover`.

    Raises:
        LakeError: the table can't be read or written.
    """
    newest = [operation for _, operation, _ in lake.commits(table, commits.CHECKPOINT_EVERY)]
    if len(newest) < commits.CHECKPOINT_EVERY and not _DELETING & set(newest):
        return
    duration = f"interval {int(retention.total_seconds() // 3600)} hours"
    if lake.properties(table).get(_LOG_RETENTION) != duration:
        lake.set_property(table, _LOG_RETENTION, duration)
    with lake.writing(table) as target:
        commits.create_checkpoint(target, lake.uri(table), lake.storage)
        target.cleanup_metadata()
        commits.remove_old_checksums(lake.uri(table), lake.storage)


def remove_leftovers(lake: Lake, *, dry_run: bool) -> dict[str, Size]:
    """Delete what killed runs left in a lake; return the size of each file or folder.

    These are half-written files beside the tables' own, folders in which something was made ready,
    and scores of nights that were not run again. Call it only where no other run can write to
    tables. On S3 nobody sees a half-written object.

    Raises:
        LakeError: one can't be deleted.
    """
    if not lake.is_local:
        scored = object_store.find(lake.uri(SCORED, "**"), lake.storage)
        if scored and not dry_run:
            object_store.delete([stored.key for stored in scored], lake.storage)
        return {stored.key: Size(1, stored.size or 0) for stored in scored}
    root = Path(lake.root)
    scores = list(root.glob(f"{SCORED}/*"))
    patterns = ("*/_delta_log/_commit_*.tmp", "*/_delta_log/*#*", "*/*#*", "*/*=*/*#*")
    left = [path for pattern in patterns for path in root.glob(pattern)]
    parents = [root, *(path for path in root.glob("*") if path.is_dir())]
    folders = [folder for parent in parents for folder in leftover_folders(parent)]
    sizes = {str(path): size_on_disk(path) for path in (*left, *folders, *scores)}
    if not dry_run:
        try:
            for path in left:
                path.unlink()
            if scores:
                shutil.rmtree(root / SCORED)
            for parent in parents:
                remove_leftover_folders(parent)
        except OSError as error:
            raise LakeError(f"could not delete what a killed run left: {error}") from error
    return sizes


def size_on_disk(path: Path) -> Size:
    """Return the size of a file, or of all files under a folder."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum((Size(1, file.stat().st_size) for file in files), Size())
