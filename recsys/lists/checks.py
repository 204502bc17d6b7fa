"""The rules that every list must keep, checked on the rows that are published."""

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
    from collections.abc import Iterable, Mapping
    from datetime import date

    import duckdb

    from recsys.lake.roles import Roles
    from recsys.lake.tables import Lake
    from recsys.settings import Recommending


class ListChecks:
    """Counts violations slice by slice of users; memory grows by a few bytes per user.

    Each slice is compared with the histories that its lists were made from. At the end those
    histories are compared with `interactions`, so that no error in them hides one in the lists.

    Args:
        con: a connection with a view ``interactions`` (user_id, item_id; with roles also event,
            value and timestamp).
        eligible: (E,) ids of the items that may be listed.
        recommending: how many items, of which kind.
        roles: which interactions count as had; all when None.
        caps: item_id, value and most: no list has more items of one value; none when None.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        eligible: pa.Array,
        recommending: Recommending,
        roles: Roles | None = None,
        caps: pa.Table | None = None,
    ) -> None:
        self._con, self._has_caps = con, caps is not None
        self._parameters = {
            "k": recommending.k,
            "exclude_seen": recommending.seen == "exclude",
            "min_confidence": recommending.min_confidence,
            "most_new": recommending.most_new_items,
            "may_be_short": self._has_caps,
        }
        self._violations: Counter[str] = Counter()
        con.register("eligible_ids", pa.table({columns.ITEM_ID: eligible}))
        con.execute("create or replace temp table eligible as from eligible_ids")
        con.unregister("eligible_ids")
        if caps is not None:
            con.register("caps", caps)
        if roles:
            roles.create_macro(con)
            con.execute(load("lists/create_interactions_with_had"))
        else:
            con.execute(
                "create or replace temp view interactions_with_had as "
                "select user_id, item_id, true as had from interactions"
            )
        con.execute(load("lists/create_used_histories"))

    def check(self, lists: pa.Table, history: pa.Table) -> None:
        """Check the whole lists of some users.

        Args:
            lists: user_id, rank, item_id, score, reason and confidence; rows in the order that
                they are published in.
            history: user_id, item_id, had, one row per interaction of the same users.
        """
        self._con.register("lists", lists)
        self._con.register("history", history)
        counts = self._con.execute(load("lists/list_violations"), self._parameters).fetchall()
        self._violations.update(dict(counts))
        if self._has_caps:
            counts = self._con.execute(load("lists/cap_violations")).fetchall()
            self._violations.update(dict(counts))
        self._con.execute(load("lists/insert_used_histories"))

    def violations(self) -> dict[str, int]:
        """Return each rule with the number of violations over all slices."""
        counts = self._con.execute(load("lists/history_violations")).fetchall()
        return {**self._violations, **dict(counts)}


def enforce(
    lake: Lake,
    violations: Mapping[str, int],
    run_date: date,
    told: Iterable[CheckResult] = (),
) -> None:
    """Write every result to `quality_results`, and refuse lists that break a rule.

    Args:
        lake: the lake.
        violations: of each rule.
        run_date: of the lists.
        told: what else is said of them there.

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
    write_check_results(lake, subject, [*results, *told], datetime.now(UTC))
    broken = [f"{rule}: {count:,} violations" for rule, count in violations.items() if count]
    if broken:
        raise GateError(
            "the lists were not published, because they break rules that every list must keep: "
            + "; ".join(broken)
            + ". The previous lists stay in place. This is a defect of recsys: please report it"
        )
