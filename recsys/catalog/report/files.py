"""Where reports lie: under the lake, one file a day, and `latest.html` on the newest lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from recsys.catalog.query import open_catalog
from recsys.catalog.report.figures import read_figures
from recsys.catalog.report.page import render
from recsys.errors import LakeError
from recsys.lake import object_store
from recsys.lake.maintenance import Size, size_on_disk
from recsys.temporary import replace_file, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from recsys.lake.tables import Lake

FOLDER = "reports"
_LATEST = "latest.html"


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        html: the page.
        run_date: the day whose lists it is about.
        is_newest: whether they are the newest.
    """

    html: str
    run_date: date
    is_newest: bool


def make_report(lake: Lake, run_date: date | None = None) -> Report:
    """Make the report on the lists of a day, of the newest lists when not given.

    Raises:
        MissingError: there is no catalog yet.
        LakeError: the catalog can't be read.
    """
    with open_catalog(lake) as con:
        figures = read_figures(con, run_date)
    return Report(render(figures), figures.run_date, figures.is_newest)


def write_report(lake: Lake, run_date: date | None = None) -> str:
    """Write the report on the lists of a day under the lake, and return its address.

    Raises:
        LakeError: the catalog can't be read, or the report can't be written.
    """
    report = make_report(lake, run_date)
    names = [f"{report.run_date.isoformat()}.html", *([_LATEST] if report.is_newest else [])]
    for name in names:
        _put(lake, report.html, name)
    return report_address(lake, names[0])


def report_address(lake: Lake, name: str = _LATEST) -> str:
    """Return where a report lies."""
    return lake.uri(FOLDER, name)


def remove_reports(lake: Lake, before: date, *, dry_run: bool) -> dict[str, Size]:
    """Delete the reports on days before a day, and return the size of each.

    Raises:
        LakeError: the folder can't be listed, or a file can't be deleted.
    """
    old = {name: size for name, size in _sizes(lake).items() if name < before.isoformat()}
    if not dry_run:
        _delete(lake, old)
    return old


def forget_user(lake: Lake, user: str) -> int:
    """Delete the reports that show a user, each of which shows a few; return how many.

    Raises:
        LakeError: a report can't be read or deleted.
    """
    mark = Markup('data-user="{}"').format(user)
    shown = [name for name in _sizes(lake) if mark in _read(lake, name)]
    _delete(lake, shown)
    return len(shown)


def _put(lake: Lake, page: str, name: str) -> None:
    try:
        if lake.is_local:
            with replace_file(Path(report_address(lake, name))) as path:
                path.write_text(page, encoding="utf-8")
            return
        with temporary_folder() as folder:
            path = folder / name
            path.write_text(page, encoding="utf-8")
            address = report_address(lake, name)
            object_store.upload(path, address, lake.storage, content_type="text/html")
    except OSError as error:
        raise LakeError(f"could not write {report_address(lake, name)}: {error}") from error


def _read(lake: Lake, name: str) -> str:
    address = report_address(lake, name)
    if lake.is_local:
        try:
            return Path(address).read_text(encoding="utf-8")
        except OSError as error:
            raise LakeError(f"could not read {address}: {error}") from error
    with temporary_folder() as folder:
        object_store.download(address, folder / name, lake.storage)
        return (folder / name).read_text(encoding="utf-8")


def _sizes(lake: Lake) -> dict[str, Size]:
    """Return the size of each report, by its file's name."""
    if lake.is_local:
        return {path.name: size_on_disk(path) for path in Path(lake.uri(FOLDER)).glob("*.html")}
    stored = object_store.find(lake.uri(FOLDER, "*.html"), lake.storage)
    return {one.key.rpartition("/")[2]: Size(1, one.size or 0) for one in stored}


def _delete(lake: Lake, names: Iterable[str]) -> None:
    addresses = [report_address(lake, name) for name in names]
    if not lake.is_local:
        object_store.delete(addresses, lake.storage)
        return
    for address in addresses:
        try:
            Path(address).unlink(missing_ok=True)
        except OSError as error:
            raise LakeError(f"could not delete {address}: {error}") from error
