"""Pages for people: HTML files in a folder of the lake, each of which needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import LakeError
from recsys.lake import object_store
from recsys.lake.faults import CHECK_DISK
from recsys.lake.maintenance import Size, size_on_disk
from recsys.temporary import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recsys.lake.tables import Lake


def write_page(lake: Lake, folder: str, name: str, page: str) -> str:
    """Write a page, in place of what has its name, and return its address.

    Raises:
        LakeError: it can't be written.
    """
    address = lake.uri(folder, name)
    if not lake.is_local:
        object_store.put(address, page.encode(), lake.storage, content_type="text/html")
        return address
    try:
        with replace_file(Path(address)) as path:
            path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise LakeError(f"could not write {address}: {error}. {CHECK_DISK}") from error
    return address


def read_page(lake: Lake, folder: str, name: str) -> str:
    """Return a page.

    Raises:
        LakeError: it can't be read.
    """
    address = lake.uri(folder, name)
    if not lake.is_local:
        return object_store.get(address, lake.storage).decode()
    try:
        return Path(address).read_text(encoding="utf-8")
    except OSError as error:
        raise LakeError(f"could not read {address}: {error}") from error


def page_sizes(lake: Lake, folder: str) -> dict[str, Size]:
    """Return the size of each page of a folder, by its name.

    Raises:
        LakeError: the folder can't be listed.
    """
    if lake.is_local:
        return {path.name: size_on_disk(path) for path in Path(lake.uri(folder)).glob("*.html")}
    stored = object_store.find(lake.uri(folder, "*.html"), lake.storage)
    return {one.key.rpartition("/")[2]: Size(1, one.size or 0) for one in stored}


def delete_pages(lake: Lake, folder: str, names: Iterable[str]) -> None:
    """Delete pages of a folder; one that is not there is no error.

    Raises:
        LakeError: one can't be deleted.
    """
    addresses = [lake.uri(folder, name) for name in names]
    if not lake.is_local:
        object_store.delete(addresses, lake.storage)
        return
    for address in addresses:
        try:
            Path(address).unlink(missing_ok=True)
        except OSError as error:
            raise LakeError(f"could not delete {address}: {error}") from error
