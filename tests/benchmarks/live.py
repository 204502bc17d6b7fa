"""How long live metrics take: `python -m tests.benchmarks.live [USERS]`, a million by default.

Seven nights of lists of 20 items for everybody, histories of 100 interactions on average, and seven
days on each of which a fifth of the users takes three items. The lake is made in one process and
judged in another, whose seconds and peak memory are printed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from recsys import columns
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.operations.judging import NIGHTS
from recsys.operations.monitoring import update_live_metrics
from recsys.settings import Settings
from tests import lakes

ITEMS, HISTORY, K = 100_000, 100, 20
FIRST = date(2026, 1, 1)
_NIGHT = FIRST + timedelta(days=NIGHTS)

_HISTORIES = f"""
select user_id, floor({ITEMS} ** random())::bigint as item_id,
    timestamptz '2025-12-01 00:00:00+00' + to_seconds(cast(random() * 2591000 as bigint))
        as timestamp,
    null::varchar as event, null::double as value, 1::bigint as source_row, 'old' as batch_id,
    timestamptz '2025-12-31 12:00:00+00' as ingested_at
from range($users) as users (user_id), range({HISTORY}) as interactions (number)
"""
_DAYS = f"""
select (hash(user_id, day, 1) % $users)::bigint as user_id,
    floor({ITEMS} ** random())::bigint as item_id,
    timestamptz '2026-01-01 04:00:00+00' + to_days(day::integer) + to_minutes(number * 60)
        as timestamp,
    null::varchar as event, null::double as value, 1::bigint as source_row, 'new' as batch_id,
    timestamptz '2026-01-02 01:00:00+00' + to_days(day::integer) as ingested_at
from range($users // 5) as users (user_id), range({NIGHTS}) as days (day), range(3) as t (number)
"""
_LISTS = f"""
select $run_date::date as run_date, 'run' as run_id, user_id, rank::integer as rank,
    (user_id * 7919 + rank * 104729 + day($run_date::date)) % ({ITEMS} // 100) + 1 as item_id,
    (1 / rank)::float as score, 'model' as reason, 'm' as model_id, 1::bigint as
    interactions_version, timestamptz '2026-01-01 03:00:00+00' as generated_at,
    1::integer as edition, null::float as confidence
from range($users) as users (user_id), range(1, {K + 1}) as ranks (rank)
"""
_PLACES = """
select $run_date::date as run_date, 1::integer as edition,
    (row_number() over (order by count(*) desc, item_id))::integer as place, item_id,
    count(*)::float as score
from interactions
group by item_id
qualify place <= 20 + $longest
"""


def make(lake: Lake, settings: Settings, users: int) -> None:
    """Write a lake of so many users, as nights would have left it."""
    lake.create(pa.int64(), pa.int64())
    with open_duckdb(settings) as con:
        con.execute("select setseed(0.5)").fetchall()
        for rows in (_HISTORIES, _DAYS):
            reader = con.sql(rows, params={"users": users}).to_arrow_reader(1_000_000)
            schema = lake.schema(columns.INTERACTIONS)
            lake.append(columns.INTERACTIONS, _cast(reader, schema))
        lake.view(con, columns.INTERACTIONS)
        for day in range(NIGHTS):
            run_date = FIRST + timedelta(days=day)
            for table, rows, more in (
                (columns.RECOMMENDATIONS, _LISTS, {"users": users}),
                (columns.POPULAR_ITEMS, _PLACES, {"longest": HISTORY + 3 * NIGHTS}),
            ):
                reader = con.sql(rows, params={"run_date": run_date, **more}).to_arrow_reader(
                    1_000_000
                )
                lake.append(table, _cast(reader, lake.schema(table)))
            published = datetime(run_date.year, run_date.month, run_date.day, 3, tzinfo=UTC)
            edition = lakes.edition(
                run_date,
                data_until=settings.end_of(run_date),
                published_at=published,
                model_id=None,
            )
            lakes.write(lake, columns.EDITIONS, [edition])


def _cast(reader: pa.RecordBatchReader, schema: pa.Schema) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(
        schema, (pa.Table.from_batches([b]).cast(schema).to_batches()[0] for b in reader)
    )


def main(arguments: list[str]) -> None:
    users, folder = int(arguments[0]) if arguments else 1_000_000, arguments[1:]
    if not folder:
        with tempfile.TemporaryDirectory() as name:
            for step in ("make", "judge"):
                command = [sys.executable, "-m", __spec__.name, str(users), name, step]
                subprocess.run(command, check=True)
        return
    settings = Settings(lake=str(Path(folder[0]) / "lake"), memory_limit="3GB")
    lake = Lake.from_settings(settings)
    if folder[1] == "make":
        make(lake, settings, users)
        return
    began, began_cpu = time.perf_counter(), time.process_time()
    result = update_live_metrics(lake, settings, _NIGHT, now=settings.end_of(_NIGHT))
    figures = {
        "users": users,
        "nights": result.nights,
        "rows": result.rows,
        "judged_users": result.users,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - began_cpu, 1),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
