"""Files of models that nothing needs any more: which ones, and their removal. Rows stay."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from recsys import columns
from recsys.errors import LakeError
from recsys.lake import object_store
from recsys.lake.maintenance import Size, size_on_disk
from recsys.registry.models import WEIGHTS, model_rows
from recsys.registry.promotions import promotions

if TYPE_CHECKING:
    from recsys.lake.tables import Lake


def remove_unneeded_models(lake: Lake, since: datetime, *, dry_run: bool) -> dict[str, Size]:
    """Delete the files of models that nothing needs; return them, with their sizes.

    Needed are the champion, models trained since then, those that served since then or right before
    one that did, and those whose lists stand. A folder without a row is of a training that goes on,
    or that was killed: it goes when it is as old.

    Args:
        lake: the lake.
        since: what was trained later stays.
        dry_run: whether nothing is deleted.

    Raises:
        LakeError: the lake can't be read, or the files can't be deleted.
    """
    rows = model_rows(lake)
    needed = {row.model_id for row in rows if row.status == "champion" or row.trained_at >= since}
    needed |= _ids_of_lists(lake) | _ids_since(lake, since)
    registered = {row.model_id for row in rows}
    unneeded = {}
    for model_id, (size, written) in _folders(lake).items():
        if model_id not in needed and (model_id in registered or written < since):
            unneeded[model_id] = size
    if not dry_run:
        for model_id in unneeded:
            _delete(lake, model_id)
    return unneeded


def _ids_of_lists(lake: Lake) -> set[str]:
    if not lake.exists(columns.RECOMMENDATIONS):
        return set()
    ids = lake.rows(columns.RECOMMENDATIONS, ["model_id"])["model_id"]
    return {model_id for model_id in ids.unique().to_pylist() if model_id}


def _ids_since(lake: Lake, since: datetime) -> set[str]:
    """Return the models that served since a time, and those that a rollback would go back to."""
    history = promotions(lake)
    newer = [promotion for promotion in history if promotion.promoted_at >= since]
    served_then = [promotion for promotion in history if promotion.promoted_at < since][-1:]
    served = {one.model_id for one in newer + served_then}
    before = {one.previous_model_id for one in newer}
    return {model_id for model_id in served | before if model_id}


def _folders(lake: Lake) -> dict[str, tuple[Size, datetime]]:
    """Return the size of each model's files, and when the newest was written."""
    if lake.is_local:
        folders = [path for path in Path(lake.uri(WEIGHTS)).glob("[!.]*") if path.is_dir()]
        return {
            folder.name: (size_on_disk(folder), datetime.fromtimestamp(folder.stat().st_mtime, UTC))
            for folder in folders
        }
    pattern = lake.uri(WEIGHTS, "*", "**")
    times = object_store.modified(pattern, lake.storage)
    found: dict[str, tuple[Size, datetime]] = {}
    for stored in object_store.find(pattern, lake.storage):
        name = stored.key.removeprefix(lake.uri(WEIGHTS, "")).partition("/")[0]
        size, newest = found.get(name, (Size(), times[stored.key]))
        found[name] = size + Size(1, stored.size or 0), max(newest, times[stored.key])
    return found


def _delete(lake: Lake, model_id: str) -> None:
    uri = lake.uri(WEIGHTS, model_id)
    if not lake.is_local:
        stored = object_store.find(f"{uri}/**", lake.storage)
        object_store.delete((one.key for one in stored), lake.storage)
        return
    try:
        shutil.rmtree(uri)
    except OSError as error:
        raise LakeError(f"could not delete {uri}: {error}") from error
