"""Where reports lie: under the lake, one file a day, and `latest.html` on the newest lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from recsys.catalog.query import open_catalog
from recsys.catalog.report.figures import read_figures
from recsys.catalog.report.page import render
from recsys.lake.pages import delete_pages, page_sizes, read_page, write_page

if TYPE_CHECKING:
    from datetime import date

    from recsys.lake.maintenance import Size
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
    folder = Path(lake.root) if lake.is_local else None
    return Report(render(figures, folder), figures.run_date, figures.is_newest)


def write_report(lake: Lake, run_date: date | None = None) -> str:
    """Write the report on the lists of a day under the lake, and return its address.

    Raises:
        LakeError: the catalog can't be read, or the report can't be written.
    """
    report = make_report(lake, run_date)
    names = [f"{report.run_date.isoformat()}.html", *([_LATEST] if report.is_newest else [])]
    for name in names:
        write_page(lake, FOLDER, name, report.html)
    return report_address(lake, names[0])


def report_address(lake: Lake, name: str = _LATEST) -> str:
    """Return where a report lies."""
    return lake.uri(FOLDER, name)


def remove_reports(lake: Lake, before: date, *, dry_run: bool) -> dict[str, Size]:
    """Delete the reports on days before a day, and return the size of each.

    Raises:
        LakeError: the folder can't be listed, or a file can't be deleted.
    """
    sizes = page_sizes(lake, FOLDER)
    old = {name: size for name, size in sizes.items() if name < before.isoformat()}
    if not dry_run:
        delete_pages(lake, FOLDER, old)
    return old


def forget_user(lake: Lake, user: str) -> int:
    """Delete the reports that show a user, each of which shows a few; return how many.

    Raises:
        LakeError: a report can't be read or deleted.
    """
    mark = Markup('data-user="{}"').format(user)
    names = page_sizes(lake, FOLDER)
    shown = [name for name in names if mark in read_page(lake, FOLDER, name)]
    delete_pages(lake, FOLDER, shown)
    return len(shown)
