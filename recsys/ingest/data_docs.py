"""Great Expectations' pages under the lake: those of a batch are added, and removed later."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import LakeError
from recsys.lake import object_store
from recsys.lake.maintenance import Size

if TYPE_CHECKING:
    from collections.abc import Collection

    from recsys.lake.tables import Lake

_FOLDER = "data_docs"
_PAGES = "validations"  # / suite / batch_id / time / page


def write_data_docs(lake: Lake, pages: Path) -> None:
    """Add the HTML pages of a batch to those of earlier batches under the lake."""
    if not lake.is_local:
        object_store.upload_folder(pages, lake.uri(_FOLDER), lake.storage, once=("static",))
        return
    try:
        shutil.copytree(pages, lake.uri(_FOLDER), dirs_exist_ok=True)
    except OSError as error:
        raise LakeError(f"could not write {lake.uri(_FOLDER)}: {error}") from error


def pages_of(lake: Lake) -> set[str]:
    """Return the batches that have pages."""
    return set(_sizes(lake))


def remove_pages(lake: Lake, keep: Collection[str], *, dry_run: bool) -> dict[str, Size]:
    """Delete the pages of all batches but those to keep; return the sizes by batch_id.

    Raises:
        LakeError: a page can't be listed or deleted.
    """
    sizes = _sizes(lake)
    removed = {batch: size for batch, size in sizes.items() if batch not in keep}
    if dry_run:
        return removed
    for batch in removed:
        if lake.is_local:
            for folder in Path(lake.uri(_FOLDER, _PAGES)).glob(f"*/{batch}"):
                try:
                    shutil.rmtree(folder)
                except OSError as error:
                    raise LakeError(f"could not delete {folder}: {error}") from error
        else:
            pages = object_store.find(lake.uri(_FOLDER, _PAGES, "*", batch, "**"), lake.storage)
            object_store.delete((page.key for page in pages), lake.storage)
    return removed


def _sizes(lake: Lake) -> dict[str, Size]:
    """Return the size of each batch's pages."""
    root = lake.uri(_FOLDER, _PAGES)
    if lake.is_local:
        files = [path for path in Path(root).glob("*/*/**/*") if path.is_file()]
        pages = [(path.relative_to(root).parts, path.stat().st_size) for path in files]
    else:
        stored = object_store.find(f"{root}/**", lake.storage)
        pages = [(tuple(one.key[len(root) + 1 :].split("/")), one.size or 0) for one in stored]
    sizes: dict[str, Size] = {}
    for (_, batch, *_rest), size in pages:
        sizes[batch] = sizes.get(batch, Size()) + Size(1, size)
    return sizes
