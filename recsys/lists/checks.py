"""The rules that every list keeps, checked on the rows themselves as they are made."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys import columns
from recsys.errors import GateError
from recsys.lake.check_results import CheckResult, write_check_results
from sql import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    import duckdb

    from recsys.lake.tables import Lake


class ListChecks:
    """Counts violations over slices of users, so that memory grows by a few bytes a user only.

    Each slice is held against the histories that its lists were made from. In the end those
    histories are held against `interactions`, so that no error of theirs can hide one of the lists.

    Args:
        con: a connection with a view ``interactions`` (user_id, item_id).
        eligible: (E,) ids of the items that may be listed.
        k: items due to each user.
        exclude_seen: whether an item that a user has had may not be listed.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, eligible: pa.Array, *, k: int, exclude_seen: bool
    ) -> None:
        self._con = con
        self._parameters = {"k": k, "exclude_seen": exclude_seen}
        self._violations: Counter[str] = Counter()
        con.register("given", pa.table({columns.ITEM_ID: eligible}))
        con.execute("create or replace temp table eligible as from given")
        con.unregister("given")
        con.execute(load("lists/create_used_histories"))

    def check(self, lists: pa.Table, history: pa.Table) -> None:
        """Check the whole lists of some users.

        Args:
            lists: user_id, rank, item_id, score, reason; rows in the order they are published in.
            history: user_id, item_id, one row per interaction of the same users.
        """
        self._con.register("lists", lists)
        self._con.register("history", history)
        found = self._con.execute(load("lists/list_violations"), self._parameters).fetchall()
        self._violations.update(dict(found))
        self._con.execute(load("lists/insert_used_histories"))

    def violations(self) -> dict[str, int]:
        """Return each rule with the number of violations over all slices."""
        found = self._con.execute(load("lists/history_violations")).fetchall()
        return {**self._violations, **dict(found)}


def enforce(lake: Lake, violations: Mapping[str, int], run_date: date) -> None:
    """Write every result to `quality_results`, and refuse lists that break a rule.

    Raises:
        GateError: some rule has violations.
    """
    results = [
        CheckResult(
            suite="recommendations",
            rule=rule,
            status="failed" if count else "passed",
            observed=str(count),
            threshold="0",
        )
        for rule, count in violations.items()
    ]
    subject = f"{columns.RECOMMENDATIONS} {run_date.isoformat()}"
    write_check_results(lake, subject, results, datetime.now(UTC))
    broken = [f"{rule}: {count:,} violations" for rule, count in violations.items() if count]
    if broken:
        raise GateError(
            "the lists were not published, since they break what every list must keep: "
            + "; ".join(broken)
            + ". The lists of before still stand; this is a defect of ours, please report it"
        )
