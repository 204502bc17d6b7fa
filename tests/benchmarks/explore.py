"""How long a page of `recsys explore` takes: `python -m tests.benchmarks.explore [USERS] [FOLDER]`.

100,000 users by default, with 50 interactions each on average, and five nights of lists of 20 items
for everybody. The pages are asked for over HTTP, of a server in a process of its own, whose memory
at the end is printed. FOLDER keeps the lake for the next time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa

from recsys import columns
from recsys.catalog.publish import publish_catalog
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.settings import Settings
from tests import lakes

NIGHTS, HISTORY, K = 5, 50, 20
FIRST = date(2026, 1, 1)
_PARTS = 6
_TIMES = 30  # pages of each kind

# In the order in which they happened, as interactions come: a user's are in every file.
_INTERACTIONS = f"""
select user_id, floor($items ** random())::bigint as item_id,
    timestamptz '2025-07-01 00:00:00+00' + to_days(30 * $part::integer)
        + to_seconds(cast(random() * 2591000 as bigint)) as timestamp,
    'view' as event, null::double as value, 1::bigint as source_row, 'batch' || $part as batch_id,
    timestamptz '2025-12-31 12:00:00+00' as ingested_at
from range($users) as users (user_id), range({HISTORY}) as interactions (number)
where hash(user_id, number) % {_PARTS} = $part
order by timestamp
"""
_LISTS = f"""
select $run_date::date as run_date, 'run' as run_id, user_id, rank::integer as rank,
    1 + (user_id * 31 + rank * rank * 7919 + day($run_date::date) * (rank % 3)) % ($items // 10)
        as item_id,
    (-rank)::float as score, 'model' as reason, 'm' as model_id, 1::bigint as interactions_version,
    timestamptz '2026-01-01 03:00:00+00' as generated_at, 1::integer as edition,
    0.5::float as confidence
from range($users) as users (user_id), range(1, {K + 1}) as ranks (rank)
order by user_id, rank
"""
_ITEMS = """
select item_id, 'The title of item ' || item_id as title, 'genre ' || item_id % 20 as category,
    true as eligible, '{}' as extra
from range($items) as items (item_id)
"""


def make(lake: Lake, settings: Settings, users: int) -> None:
    """Write a lake of so many users, and a fifth as many items, as nights would have left it."""
    lake.create(pa.int64(), pa.int64())
    size = {"users": users, "items": users // 5}
    with open_duckdb(settings) as con:
        con.execute("select setseed(0.5)").fetchall()

        def write(table: str, rows: str, **more: object) -> None:
            named = {name: value for name, value in {**size, **more}.items() if f"${name}" in rows}
            found = con.sql(rows, params=named).to_arrow_table()
            lake.append(table, found.cast(lake.schema(table)))

        write(columns.ITEMS, _ITEMS)
        for part in range(_PARTS):
            write(columns.INTERACTIONS, _INTERACTIONS, part=part)
        for night in range(NIGHTS):
            run_date = FIRST + timedelta(days=night)
            write(columns.RECOMMENDATIONS, _LISTS, run_date=run_date)
            published = datetime(run_date.year, run_date.month, run_date.day, 3, tzinfo=UTC)
            edition = lakes.edition(
                run_date,
                data_until=settings.end_of(run_date),
                published_at=published,
                model_id="m",
                users=users,
                popular_users=0,
                without_list=0,
                rows=users * K,
            )
            lakes.write(lake, columns.EDITIONS, [edition])
    with lake.write_lock():
        publish_catalog(lake)


def measure(lake: Lake, users: int) -> None:
    """Ask for pages of users and items drawn by a seed; print milliseconds and the peak memory."""
    drawn = np.random.default_rng(0)
    some_users = drawn.integers(users, size=_TIMES).tolist()
    some_items = ((users // 5) ** drawn.random(_TIMES)).astype(int).tolist()
    night, before = FIRST + timedelta(days=NIGHTS - 1), FIRST
    kinds = {
        "a user": [f"/user?id={user}" for user in some_users],
        "a user, two nights": [f"/user?id={user}&against={before}" for user in some_users],
        "neighbours of a user": [f"/user/neighbours?id={user}" for user in some_users],
        "an item": [f"/item?id={item}" for item in some_items],
        "the most popular item": ["/item?id=1"] * 10,
        "neighbours of an item": [f"/item/neighbours?id={item}" for item in some_items],
        "a search": [f"/search?q={item}" for item in some_items],
        "two whole nights": [f"/nights?night={night}&against={before}"] * 10,
    }
    command = [sys.executable, "-m", "flows.cli", "--lake", lake.root, "explore", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        try:
            root = server.stderr.readline().split()[0].rstrip("/")
            for kind, paths in kinds.items():
                seconds, cpu = [], _cpu(server.pid)
                for path in paths:
                    began = time.perf_counter()
                    httpx.get(root + path, timeout=60)
                    seconds.append(time.perf_counter() - began)
                cpu = (_cpu(server.pid) - cpu) / len(paths)
                middle, high = 1000 * np.quantile(seconds, [0.5, 0.95])
                print(f"| {kind} | {middle:.0f} ms | {high:.0f} ms | {1000 * cpu:.0f} ms |")
            print(psutil.Process(server.pid).memory_info().rss // 2**20, "MiB")
        finally:
            server.terminate()


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main(arguments: list[str]) -> None:
    """Make the lake where it is not there yet, then measure."""
    users = int(arguments[0]) if arguments else 100_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments[1] if len(arguments) > 1 else temporary)
        settings = Settings(lake=str(folder / "lake"), memory_limit="3GB")
        lake = Lake.from_settings(settings)
        if not Path(lake.uri("catalog.duckdb")).exists():
            make(lake, settings, users)
        measure(lake, users)


if __name__ == "__main__":
    main(sys.argv[1:])
