"""What the checks said: the one writer of `quality_results`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from recsys import columns
from sql import literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from recsys.lake.tables import Lake


@dataclass(frozen=True)
class CheckResult:
    """The result of one check, as a row of `quality_results` holds it.

    Attributes:
        suite: the group of rules that this one belongs to.
        rule: what is required, in words.
        status: broken where the check itself did not run, so that it says nothing about the data.
        observed: what the check saw.
        threshold: the limit.
        column: what the rule looks at, where that is one column.
        detail: the error of a check that did not run.
    """

    suite: str
    rule: str
    status: Literal["passed", "failed", "broken"]
    observed: str
    threshold: str
    column: str | None = None
    detail: str | None = None


def write_check_results(
    lake: Lake, subject: str, results: Iterable[CheckResult], checked_at: datetime
) -> None:
    """Replace all results of a subject (a batch, a source, a night's lists) in one commit.

    Raises:
        LakeError: the lake can't be read or written.
    """
    rows = [{"subject": subject, **asdict(one), "checked_at": checked_at} for one in results]
    table = pa.Table.from_pylist(rows, schema=lake.schema(columns.QUALITY_RESULTS))
    lake.replace(columns.QUALITY_RESULTS, table, where=f"subject = {literal(subject)}")
