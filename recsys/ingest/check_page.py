"""The checks of a batch as a page: one file that asks nothing of the network and shows no row."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from recsys.lake.pages import delete_pages, page_sizes, write_page

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from recsys.ingest.commit import Batch
    from recsys.lake.check_results import CheckResult
    from recsys.lake.maintenance import Size
    from recsys.lake.tables import Lake

_FOLDER = "checks"


def write_check_page(
    lake: Lake,
    batch: Batch,
    results: Sequence[CheckResult],
    reasons: Sequence[tuple[str, int]],
) -> None:
    """Write the page of a batch under the lake.

    Args:
        lake: where to.
        batch: what was read.
        results: what the checks said.
        reasons: how many rows were rejected, by reason.

    Raises:
        LakeError: it can't be written.
    """
    page = _template().render(batch=batch, results=results, reasons=reasons)
    write_page(lake, _FOLDER, _name(batch.batch_id), page)


def check_page_address(lake: Lake, batch_id: str) -> str:
    """Return where the page of a batch lies."""
    return lake.uri(_FOLDER, _name(batch_id))


def remove_check_pages(lake: Lake, keep: Collection[str], *, dry_run: bool) -> dict[str, Size]:
    """Delete the pages of all batches but those to keep; return the size of each.

    Raises:
        LakeError: a page can't be listed or deleted.
    """
    kept = {_name(batch_id) for batch_id in keep}
    old = {name: size for name, size in page_sizes(lake, _FOLDER).items() if name not in kept}
    if not dry_run:
        delete_pages(lake, _FOLDER, old)
    return old


def _name(batch_id: str) -> str:
    return f"{batch_id}.html"


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("recsys.ingest", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("check_page.html")
