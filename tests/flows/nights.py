"""A small shop whose nights can be run as processes of their own, and compared."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from prefect.settings import PREFECT_API_URL, temporary_settings

from recsys import columns
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage, Settings
from sql import quote
from tests import templates

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkServerContext
    from multiprocessing.process import BaseProcess

USERS, ITEMS, K = 40, 25, 5

# A query that gives no row and does not end, for what has to be stopped.
ENDLESS = (
    "select range as user_id, range as item_id, timestamp '2026-01-01' as timestamp "
    "from range(1_000_000_000_000) where range % 7 = 8"
)

# Another, which heeds no signal.
CROSS_JOIN = (
    "select a.range as user_id, b.range as item_id, timestamp '2026-01-01' as timestamp "
    "from range(1_000_000) a, range(10_000_000) b where a.range * b.range % 7 = 8"
)

# What differs between two runs on the same inputs: who ran, and when.
_VOLATILE = {
    columns.INTERACTIONS: {"ingested_at"},
    columns.QUARANTINE: {"quarantined_at"},
    columns.BATCHES: {"started", "finished"},
    columns.EDITIONS: {"run_id", "changed_at", "published_at"},
    columns.RECOMMENDATIONS: {"run_id", "generated_at"},
    columns.MODELS: {"trained_at", "seconds"},
    columns.QUALITY_RESULTS: {"checked_at", "threshold"},  # which may be a moment
    columns.ITEMS: set(),
}


# Of the epochs in a model's config.
_SPEED = re.compile(r'"(seconds|targets_per_second)": [^,}]+')


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


def make_endless(path: Path) -> None:
    """Make the events a query that does not end."""
    with duckdb.connect(str(path)) as con:
        con.execute(f"alter table events rename to stored; create view events as {ENDLESS}")


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


def start_night(env: dict[str, str], day: str) -> BaseProcess:
    """Start a night as a process of its own; what it says is added to a log beside the lake.

    The process is forked from a server that has imported everything once, with what torch imports
    for its first optimiser: that takes longer than the night itself.
    """
    return start_process(env, _night, (env, day))


def start_process(
    env: dict[str, str], target: Callable[..., None], arguments: tuple[Any, ...]
) -> BaseProcess:
    """Start a function in a process that is forked from that server."""
    said(env).parent.mkdir(parents=True, exist_ok=True)
    process = server().Process(target=target, args=arguments)
    process.start()
    return process


def server() -> ForkServerContext:
    """Return what starts processes; its server starts with the first one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["great_expectations", "flows.nightly", "torch._dynamo"])
    return context


def _night(env: dict[str, str], day: str) -> None:
    os.environ |= env
    templates.keep_compiled()
    with said(env).open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    from flows.nightly import nightly_flow

    with temporary_settings({PREFECT_API_URL: env["PREFECT_API_URL"]}):
        nightly_flow(train="always", run_date=date.fromisoformat(day), as_of="now")


def run_night(env: dict[str, str], day: str) -> None:
    night = start_night(env, day)
    night.join(200)
    assert night.exitcode == 0, said(env).read_text()


def said(env: dict[str, str]) -> Path:
    """Return the file of what a process says: beside the lake, or where TESTS_LOG says."""
    return Path(env.get("TESTS_LOG") or Path(env["RECSYS_LAKE"]).with_suffix(".log"))


def contents(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table's rows, sorted, without what differs between two equal runs."""
    lake = Lake(str(root), ObjectStorage())
    found = {}
    with open_duckdb(Settings(lake=str(root))) as con:
        for table, volatile in _VOLATILE.items():
            lake.view(con, table)
            excluded = f"exclude ({', '.join(map(quote, volatile))})" if volatile else ""
            rows = con.sql(f"select * {excluded} from {table}").fetchall()
            if table == columns.MODELS:
                rows = [
                    tuple(_SPEED.sub("", text) if isinstance(text, str) else text for text in row)
                    for row in rows
                ]
            found[table] = sorted(rows, key=repr)
    return found
