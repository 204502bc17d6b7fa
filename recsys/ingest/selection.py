"""Which objects of a source an ingest reads, and which batches their rows replace.

An ingest reads what no batch has read. One that is asked to read again, after the mapping was
corrected, reads all that the source holds now, in place of what its earlier batches brought, in one
commit. A batch of which a file is gone from the source stays as it is, and no file of it is read
again: its rows could not be brought back. A row that stays the same interaction keeps its time of
ingestion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recsys.ingest.commit import Batch
    from recsys.lake.object_store import Stored


def new_objects(objects: Sequence[Stored], batches: Sequence[Batch]) -> list[Stored]:
    """Return the objects that no batch has read, whatever pattern found them."""
    ingested = {
        (stored.key, stored.etag)
        for batch in batches
        for stored in batch.objects
        if stored.etag is not None
    }
    return [stored for stored in objects if (stored.key, stored.etag) not in ingested]


def covered(batches: Sequence[Batch], objects: Sequence[Stored]) -> bool:
    """Say whether batches have read these objects, as they are now."""
    return not new_objects(objects, batches) or not have_etags(objects)


def have_etags(objects: Sequence[Stored]) -> bool:
    """Say whether the objects are files, whose ETags tell when they change, and not a table."""
    return all(stored.etag is not None for stored in objects)


def choose_replaced(
    name: str, objects: Sequence[Stored], batches: Sequence[Batch]
) -> tuple[list[Stored], list[Batch]]:
    """Return the objects to read again, and the batches that their rows replace.

    Args:
        name: the source's name.
        objects: the objects that the source has now.
        batches: the accepted batches.

    Raises:
        SourceError: no batch of the source can be replaced.
    """
    if any(stored.etag is None for stored in objects):  # a table: known by the source's name
        objects, replaced = list(objects), [batch for batch in batches if batch.source == name]
    else:
        objects, replaced = _choose_files(objects, batches)
    if not replaced:
        raise SourceError(
            f"nothing of {name} can be corrected: no batch of it is in the lake, or files of each "
            "are gone from the source. Ingest it without --again; where another query brought the "
            "rows, delete that query's batches from `interactions` and `batches` first"
        )
    return objects, replaced


def _choose_files(
    objects: Sequence[Stored], batches: Sequence[Batch]
) -> tuple[list[Stored], list[Batch]]:
    readable = {stored.key for stored in objects}
    while True:
        blocked = [batch for batch in batches if not _keys(batch) <= readable]
        remaining = readable - set().union(*map(_keys, blocked))
        if remaining == readable:
            break
        readable = remaining
    return (
        [stored for stored in objects if stored.key in readable],
        [batch for batch in batches if batch.objects and _keys(batch) <= readable],
    )


def require_rows(name: str, rows: int, replaced: Sequence[Batch]) -> None:
    """Refuse a source that holds fewer rows than the batches that it would replace brought.

    Raises:
        SourceError: rows would be lost.
    """
    accepted = sum(batch.accepted for batch in replaced)
    if rows < accepted:
        raise SourceError(
            f"{name} holds {rows:,} rows now, and its earlier batches brought {accepted:,}: "
            "reading it again would lose rows that the source no longer has. Nothing was changed"
        )


def _keys(batch: Batch) -> set[str]:
    return {stored.key for stored in batch.objects}
