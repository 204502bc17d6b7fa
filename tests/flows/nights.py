"""A small shop whose nights can be run as processes of their own, and compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb

from recsys import columns
from recsys.lake import Lake, connect
from recsys.settings import ObjectStorage, Settings

if TYPE_CHECKING:
    from pathlib import Path

USERS, ITEMS, K = 40, 25, 5

# What differs between two runs on the same inputs: who ran, and when.
_VOLATILE = {
    columns.INTERACTIONS: {"ingested_at"},
    columns.QUARANTINE: {"quarantined_at"},
    columns.BATCHES: {"started", "finished"},
    columns.RECOMMENDATIONS: {"run_id", "generated_at"},
    columns.MODELS: {"trained_at", "seconds"},
    columns.QUALITY_RESULTS: {"checked_at"},
    columns.ITEMS: set(),
}


def make_source(path: Path) -> None:
    """Each user walks the items in a ring from a place of their own; two rows are bad."""
    with duckdb.connect(str(path)) as con:
        con.execute(
            f"create table events as select u as user_id, (u * 7 + s) % {ITEMS} as item_id, "
            f"timestamp '2026-01-01' + to_minutes(s::int) as timestamp "
            f"from range({USERS}) users(u), range(9) steps(s) order by u, s"
        )
        con.execute("insert into events values (null, 3, '2026-01-02'), (5, null, '2026-01-02')")


def next_day(path: Path) -> None:
    """One more interaction for every user, and one more bad row."""
    with duckdb.connect(str(path)) as con:
        con.execute(
            f"insert into events select u, (u * 7 + 9) % {ITEMS}, timestamp '2026-01-02 12:00:00' "
            f"from range({USERS}) users(u)"
        )
        con.execute("insert into events values (7, 3, null)")


def environment(source: Path, lake: Path, api: str, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PREFECT_API_URL": api,
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "RECSYS_LAKE": str(lake),
        "RECSYS_SOURCE": json.dumps({"uri": str(source), "table": "events"}),
        "RECSYS_TRAINING": json.dumps(
            {"epochs": 2, "overrides": {"width": 16, "blocks": 1, "max_length": 10}}
        ),
        "RECSYS_RECOMMENDING": json.dumps({"k": K}),
        "RECSYS_DEVICE": "cpu",
        "RECSYS_THREADS": "1",
        **more,
    }


def start_night(env: dict[str, str], day: str, train: str = "always") -> subprocess.Popen[str]:
    command = "import datetime, sys; from flows.nightly import nightly; "
    command += "nightly(train=sys.argv[1], run_date=datetime.date.fromisoformat(sys.argv[2]))"
    return subprocess.Popen(
        [sys.executable, "-c", command, train, day],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_night(env: dict[str, str], day: str, train: str = "always") -> None:
    night = start_night(env, day, train)
    said, _ = night.communicate(timeout=200)
    assert night.returncode == 0, said


def contents(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table's rows, sorted, without what differs between two equal runs."""
    lake = Lake(str(root), ObjectStorage())
    found = {}
    with connect(Settings(lake=str(root))) as con:
        for table, volatile in _VOLATILE.items():
            lake.view(con, table)
            excluded = f"exclude ({', '.join(sorted(volatile))})" if volatile else ""
            rows = con.sql(f"select * {excluded} from {table}").fetchall()
            found[table] = sorted(rows, key=repr)
    return found
