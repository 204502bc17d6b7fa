"""Lists where they are used: delivered exactly once, whatever was killed or changed before."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import duckdb
import pytest
from pydantic import ValidationError

from recsys import columns
from recsys.cli import lists
from recsys.errors import ConfigurationError, SinkError
from recsys.lake import object_store
from recsys.lake.tables import Lake
from recsys.lists.rollback import roll_back
from recsys.lists.sinks import parquet
from recsys.lists.sinks.deliver import DeliverResult, deliver, target_of
from recsys.operations.maintain import maintain
from recsys.settings import ObjectStorage, Settings, Sink
from tests import lakes, servers

MONDAY, TUESDAY, WEDNESDAY = date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)
FIRST = {1: [10, 11], 2: [12, 13]}
SECOND = {1: [12, 10], 2: [11, 13]}

TABLE = '"Shop".lists'
Rows = list[tuple[Any, ...]]


def publish(lake: Lake, day: date, made: dict[Any, Any], number: int = 1) -> None:
    """Publish lists as the current edition of a day, as a night does."""
    lakes.write(lake, columns.RECOMMENDATIONS, lakes.lists(day, made, edition=number))
    rows = [row for row in lake.rows(columns.EDITIONS).to_pylist() if row["run_date"] == day]
    lake.delete(columns.EDITIONS, f"run_date = '{day}'")
    rows = [row | {"status": "superseded"} for row in rows]
    now, count = datetime.now(UTC), sum(map(len, made.values()))
    new = lakes.edition(day, number, rows=count, published_at=now)
    lakes.write(lake, columns.EDITIONS, [*rows, new])


@pytest.fixture
def served(lake: Lake) -> Lake:
    lakes.fill(lake, {1: [10, 11], 2: [12, 13]})
    publish(lake, MONDAY, FIRST)
    return lake


class Place:
    """A sink of a test, and what a reader of it has."""

    def __init__(self, lake: Lake, settings: Settings, sink: Sink, read: Callable[[date], Rows]):
        self.lake, self.settings, self.sink, self.read = lake, settings, sink, read

    def deliver(self, *days: date) -> DeliverResult:
        return deliver(self.lake, self.settings, self.sink, days, run_id="run")

    def rows(self, day: date = MONDAY) -> dict[Any, list[Any]]:
        lists: dict[Any, list[Any]] = {}
        for user, rank, item in sorted(self.read(day)):
            lists.setdefault(user, []).append(item)
            assert rank == len(lists[user])
        return lists

    def target(self) -> Any:
        return target_of(self.sink, self.settings)


def manifest_rows(folder: Path, day: date) -> Rows:
    """What who follows the manifest reads of a local folder."""
    place = folder / f"run_date={day}"
    if not (place / parquet.MANIFEST).exists():
        return []
    manifest = json.loads((place / parquet.MANIFEST).read_text())
    files = [str(place / name) for name in manifest["files"]]
    return duckdb.sql(
        f"select user_id, rank, item_id from read_parquet({files}, hive_partitioning = true) "
        f"where run_date = '{day}'"
    ).fetchall()


@pytest.fixture
def folder(served: Lake, settings: Settings, tmp_path: Path) -> Place:
    place = tmp_path / "shop lists"
    return Place(
        served,
        settings,
        Sink(name="shop", to=str(place)),
        lambda day: manifest_rows(place, day),
    )


@contextmanager
def bucket(served: Lake, settings: Settings, folder: Path) -> Iterator[Place]:
    with servers.moto_s3(folder) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="shop")
        storage = ObjectStorage(endpoint_url=endpoint)
        copies = folder / "copies"

        def read(day: date) -> Rows:
            for stored in object_store.find(f"s3://shop/lists/run_date={day}/*", storage):
                path = copies / stored.key.removeprefix("s3://shop/lists/")
                object_store.download(stored.key, path, storage)
            rows = manifest_rows(copies, day)
            for path in copies.glob("*/*"):
                path.unlink()
            return rows

        sink = Sink(name="shop", to="s3://shop/lists/")
        yield Place(served, settings.model_copy(update={"s3": storage}), sink, read)


@pytest.fixture
def database(served: Lake, settings: Settings, tmp_path: Path) -> Place:
    file = tmp_path / "shop.duckdb"

    def read(day: date) -> Rows:
        with duckdb.connect(str(file)) as con:
            return con.execute(
                "select user_id, rank, item_id from shop.shop.lists where run_date = ?", [day]
            ).fetchall()

    return Place(served, settings, Sink(name="db", to=str(file), table="shop.lists"), read)


@pytest.fixture(scope="module")
def postgres_address() -> Iterator[str]:
    with (  # pytest's folders are for their owner alone
        tempfile.TemporaryDirectory(prefix="postgres-") as folder,
        servers.postgres(Path(folder)) as address,
    ):
        yield address


def query(address: str, statement: str, *values: Any) -> Rows:
    """Ask Postgres as any reader would."""

    async def ask() -> Rows:
        con = await asyncpg.connect(address)
        try:
            return [tuple(row) for row in await con.fetch(statement, *values)]
        finally:
            await con.close()

    return asyncio.run(ask())


@pytest.fixture
def postgres(
    served: Lake, settings: Settings, postgres_address: str, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """A table of its own in the server of this module."""
    monkeypatch.setenv("PGPASSWORD", servers.POSTGRES_PASSWORD)
    query(postgres_address, 'drop schema if exists "Shop" cascade')
    query(postgres_address, "drop table if exists recsys_deliveries")

    def read(day: date) -> Rows:
        if query(postgres_address, "select to_regclass($1)::text", TABLE) == [(None,)]:
            return []
        return query(
            postgres_address,
            f"select user_id, rank, item_id from {TABLE} where run_date = $1",
            day,
        )

    sink = Sink(name="pg", to=postgres_address, table="Shop.lists")
    return Place(served, settings, sink, read)


@pytest.fixture(params=["folder", "bucket", "database", "postgres"])
def place(
    request: pytest.FixtureRequest,
    served: Lake,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    """Each kind of sink."""
    if request.param == "bucket":
        servers.use_credentials(monkeypatch)
        with bucket(served, settings, tmp_path) as made:
            yield made
    else:
        yield request.getfixturevalue(request.param)


def test_a_sink_follows_what_the_lake_serves(place: Place) -> None:
    lake = place.lake
    result = place.deliver(MONDAY)
    assert (result.delivered, result.rows) == ([MONDAY], 4)
    assert place.rows() == FIRST
    stamp = place.target().stamps([MONDAY])[MONDAY]
    assert (stamp.edition, stamp.rows, stamp.run_id) == (1, 4, "run")
    assert place.target().measure(MONDAY) == stamp.contents

    again = place.deliver(MONDAY)
    assert (again.delivered, again.unchanged) == ([], 1)
    assert place.target().stamps([MONDAY])[MONDAY] == stamp

    publish(lake, MONDAY, SECOND, number=2)
    assert place.deliver().delivered == [MONDAY]
    assert place.rows() == SECOND
    roll_back(lake, MONDAY, to=1, why="a test", who="ada", run_id="r-0")
    assert place.deliver().delivered == [MONDAY]
    assert place.rows() == FIRST
    roll_back(lake, MONDAY, why="a test", who="ada", run_id="r-1")
    assert place.deliver().removed == [MONDAY]
    assert place.rows() == {}
    assert place.deliver().removed == []


def test_what_a_sink_missed_is_made_up_for(place: Place) -> None:
    place.deliver(MONDAY)
    publish(place.lake, TUESDAY, SECOND)
    publish(place.lake, WEDNESDAY, FIRST)
    assert place.deliver(WEDNESDAY).delivered == [TUESDAY, WEDNESDAY]
    assert (place.rows(TUESDAY), place.rows(WEDNESDAY)) == (SECOND, FIRST)


def test_a_new_sink_gets_the_newest_day_and_those_that_are_asked_for(folder: Place) -> None:
    publish(folder.lake, TUESDAY, SECOND)
    publish(folder.lake, WEDNESDAY, FIRST)
    assert folder.deliver().delivered == [WEDNESDAY]
    assert folder.deliver(MONDAY).delivered == [MONDAY]
    assert folder.deliver().delivered == [TUESDAY]


def test_an_erased_user_leaves_the_sink(place: Place) -> None:
    place.deliver(MONDAY)
    place.lake.delete(columns.RECOMMENDATIONS, "user_id = 1")
    assert place.deliver().delivered == [MONDAY]
    assert place.rows() == {2: FIRST[2]}
    place.lake.delete(columns.RECOMMENDATIONS, "user_id = 2")
    assert place.deliver().removed == [MONDAY]
    assert place.rows() == {}


def test_a_day_that_expired_in_the_lake_stays_at_the_sink(folder: Place) -> None:
    folder.deliver(MONDAY)
    publish(folder.lake, TUESDAY, SECOND)
    later = datetime(2026, 6, 1, tzinfo=UTC)
    maintain(folder.lake, folder.settings, now=later)
    assert folder.lake.partitions(columns.RECOMMENDATIONS, "run_date") == {f"{TUESDAY}"}
    assert folder.deliver().delivered == [TUESDAY]
    assert folder.rows() == FIRST


def test_rows_that_somebody_removed_are_put_back(folder: Place, tmp_path: Path) -> None:
    folder.deliver(MONDAY)
    (file,) = (tmp_path / "shop lists" / f"run_date={MONDAY}").glob("*.parquet")
    file.unlink()
    assert folder.deliver().delivered == []  # every night does not read all that it delivered
    assert folder.deliver(MONDAY).delivered == [MONDAY]
    assert folder.rows() == FIRST


def test_a_compaction_of_the_lake_moves_no_rows(folder: Place) -> None:
    folder.deliver(MONDAY)
    before = folder.target().stamps([MONDAY])[MONDAY]
    lakes.write(  # as a killed night leaves them
        folder.lake, columns.RECOMMENDATIONS, lakes.lists(MONDAY, SECOND, edition=7)
    )
    assert folder.deliver().delivered == []
    after = folder.target().stamps([MONDAY])[MONDAY]
    assert (before.lake_rows, after.lake_rows) == (4, 8)
    assert after.contents == before.contents


def test_ids_are_text_where_they_are_text(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    made = {"a,b": ['x"y', "line\nend"], "": ["\\N", "NULL"]}
    lakes.fill(lake, made)
    publish(lake, MONDAY, made)
    place = tmp_path / "lists"
    sink = Sink(name="shop", to=str(place))
    deliver(lake, settings, sink, run_id="run")
    rows = sorted(manifest_rows(place, MONDAY))
    assert [item for _, _, item in rows] == [*made[""], *made["a,b"]]


_KILLED = """
import os, signal, sys
from pathlib import Path
from recsys.lists.sinks.deliver import deliver
from recsys.lake.tables import Lake
from recsys.settings import Settings
writes, module, names = int(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
owner = __import__(module, fromlist=["x"])
owner = getattr(owner, sys.argv[4]) if sys.argv[4] else owner
def counted(work):
    def count(*given, **named):
        global writes
        if not writes:
            os.kill(os.getpid(), signal.SIGKILL)
        writes -= 1
        return work(*given, **named)
    return count
for name in names:
    setattr(owner, name, counted(getattr(owner, name)))
settings = Settings()
deliver(Lake.from_settings(settings), settings, settings.sinks[0], run_id="run")
print("done")
"""


def killed_after(place: Place, writes: int, module: str, names: str, owner: str = "") -> bool:
    """Deliver in a process that kills itself before a write; say whether it was killed."""
    settings = place.settings
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RECSYS_LAKE": settings.lake,
        "RECSYS_S3": settings.s3.model_dump_json(),
        "RECSYS_SINKS": f"[{place.sink.model_dump_json()}]",
    }
    command = [sys.executable, "-c", _KILLED, str(writes), module, names, owner]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert run.returncode == -9 or run.stdout == "done\n", run.stderr
    return run.returncode == -9


def killed_at_each_write(place: Place, module: str, names: str, owner: str, least: int) -> None:
    """After each kill readers have the old lists or the new ones; then the next delivery ends."""
    place.deliver()
    publish(place.lake, MONDAY, SECOND, number=2)
    writes = 0
    while killed_after(place, writes, module, names, owner):
        assert place.rows() in (FIRST, SECOND)
        writes += 1
    assert writes >= least
    assert place.rows() == SECOND
    assert place.target().measure(MONDAY) == place.target().stamps([MONDAY])[MONDAY].contents
    assert place.deliver(MONDAY).delivered == []


def test_a_delivery_killed_before_its_manifest_leaves_the_lists_as_they_were(folder: Place) -> None:
    folder.deliver()
    publish(folder.lake, MONDAY, SECOND, number=2)
    assert killed_after(folder, 1, "recsys.lists.sinks.parquet", "replace_file")
    assert folder.rows() == FIRST
    assert folder.deliver().delivered == [MONDAY]
    assert folder.rows() == SECOND
    days = Path(folder.sink.to) / f"run_date={MONDAY}"
    assert len(list(days.iterdir())) == 2, "one file and the manifest"


@pytest.mark.long
def test_a_delivery_to_a_folder_is_killed_at_each_write(folder: Place) -> None:
    methods = "_put,_write_manifest,_remove_others,_fetch"
    killed_at_each_write(folder, "recsys.lists.sinks.parquet", methods, "ParquetTarget", 4)


@pytest.mark.long
def test_a_delivery_to_s3_is_killed_at_each_write(
    served: Lake, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.use_credentials(monkeypatch)
    with bucket(served, settings, tmp_path) as place:
        killed_at_each_write(place, "recsys.lake.object_store", "upload,put,delete", "", 3)


def test_a_manifest_of_somebody_else_is_refused(folder: Place) -> None:
    manifest = Path(folder.sink.to) / f"run_date={MONDAY}" / parquet.MANIFEST
    manifest.parent.mkdir(parents=True)
    manifest.write_text("[]")
    with pytest.raises(SinkError, match="not a manifest of ours"):
        folder.deliver()


@pytest.mark.parametrize(
    ("to", "kind"),
    [
        ("exports/lists", "parquet"),
        ("s3://bucket/lists", "parquet"),
        ("lists.duckdb", "duckdb"),
        ("postgresql://shop@host/db", "postgres"),
    ],
)
def test_an_address_says_the_kind(to: str, kind: str) -> None:
    assert Sink(name="shop", to=to).kind == kind


@pytest.mark.parametrize(
    "to",
    [
        "postgresql://shop:secret@host/db",
        "postgresql://host/db?user=shop&password=secret",
        "s3://key:secret@bucket/lists",
        "s3://bucket/lists?X-Amz-Signature=secret",
        "mysql://shop:secret@host/db",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_shown(
    to: str, record_property: pytest.RecordProperty
) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(sinks=({"name": "shop", "to": to},))
    assert "secret" not in str(refused.value)
    record_property("counted hostile inputs", "secret in an address")


def test_two_sinks_have_two_names_and_two_places() -> None:
    one, same_place = {"name": "a", "to": "x"}, {"name": "b", "to": "x"}
    for other in (one | {"to": "y"}, same_place):
        with pytest.raises(ValidationError, match="two sinks"):
            Settings(sinks=(one, other))


def test_rows_deleted_from_a_database_are_put_back_and_others_stay(database: Place) -> None:
    publish(database.lake, TUESDAY, SECOND)
    database.deliver(MONDAY)
    with duckdb.connect(database.sink.to) as con:
        con.execute("create table mine as select 42 as answer")
        con.execute("delete from shop.shop.lists where run_date = ? and user_id = 1", [MONDAY])
    assert database.deliver(MONDAY).delivered == [MONDAY]
    assert (database.rows(), database.rows(TUESDAY)) == (FIRST, SECOND)
    with duckdb.connect(database.sink.to) as con:
        assert con.execute("from mine").fetchall() == [(42,)]


def test_a_table_of_other_columns_is_refused_and_stays(database: Place) -> None:
    with duckdb.connect(database.sink.to) as con:
        con.execute("create schema shop")
        con.execute("create table shop.shop.lists as select 42 as answer")
    with pytest.raises(SinkError, match=r"other columns than lists have \(answer INTEGER; wanted"):
        database.deliver()
    with duckdb.connect(database.sink.to) as con:
        assert con.execute("from shop.shop.lists").fetchall() == [(42,)]


@contextmanager
def opened_elsewhere(file: str, seconds: float) -> Iterator[None]:
    code = (
        "import duckdb, sys, time\n"
        "con = duckdb.connect(sys.argv[1])\n"
        "print('open', flush=True)\n"
        "time.sleep(float(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, file, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        yield
        other.kill()


def test_a_delivery_waits_for_another_process_that_has_the_file(
    database: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with opened_elsewhere(database.sink.to, 1.0):
        assert database.deliver().delivered == [MONDAY]
    assert "has" in caplog.text
    assert "open; waiting up to 600 s" in caplog.text
    database.sink = database.sink.changed({"wait": timedelta(seconds=0.1)})
    with (
        opened_elsewhere(database.sink.to, 60),
        pytest.raises(SinkError, match=r"PID \d+.*close it"),
    ):
        database.deliver()


@pytest.mark.long
def test_a_delivery_to_a_duckdb_file_is_killed_at_each_write(database: Place) -> None:
    methods = "_create_table,_measure,_stamp,_unstamp"
    killed_at_each_write(database, "recsys.lists.sinks.duckdb_file", methods, "DuckDBTarget", 4)


@pytest.mark.long
def test_a_delivery_to_postgres_is_killed_at_each_write(postgres: Place) -> None:
    methods = "_begin,_create_table,_measure,_stamp,_unstamp"
    killed_at_each_write(postgres, "recsys.lists.sinks.postgres", methods, "PostgresTarget", 5)


def test_a_table_of_postgres_has_types_and_a_key(postgres: Place) -> None:
    postgres.deliver()
    described = query(
        postgres.sink.to,
        "select attname, format_type(atttypid, null) from pg_attribute "
        "where attrelid = to_regclass($1) and attnum > 0 order by attnum",
        TABLE,
    )
    assert dict(described) == {
        "run_date": "date",
        "user_id": "bigint",
        "rank": "integer",
        "item_id": "bigint",
        "score": "real",
        "confidence": "real",
        "reason": "text",
        "model_id": "text",
        "edition": "integer",
    }
    key = "select indexdef like '%(run_date, user_id, rank)' from pg_indexes where tablename = $1"
    assert query(postgres.sink.to, key, "lists") == [(True,)]


def test_texts_reach_postgres_as_they_are(postgres: Place, tmp_path: Path) -> None:
    """Quotes, commas, line ends, what CSV takes for null; the delivery itself compares hashes."""
    made = {"a,b": ['x"y', "line\nend", "\\N"], "": ["NULL", "", "ü\t"]}
    lake = Lake(str(tmp_path / "texts"), ObjectStorage())
    lakes.fill(lake, made)
    publish(lake, MONDAY, made)
    postgres.lake = lake
    assert postgres.deliver().rows == 6
    assert postgres.rows() == made


def test_a_table_of_postgres_with_other_columns_is_refused(postgres: Place) -> None:
    query(postgres.sink.to, 'create schema "Shop"')
    query(postgres.sink.to, f"create table {TABLE} (answer integer)")
    with pytest.raises(SinkError, match=r"other columns than lists have \(answer integer; wanted"):
        postgres.deliver()


def test_a_delivery_waits_for_another_session_and_gives_up(postgres: Place) -> None:
    postgres.deliver()
    publish(postgres.lake, MONDAY, SECOND, number=2)
    postgres.sink = postgres.sink.changed({"wait": timedelta(seconds=0.2)})

    async def hold_meanwhile() -> None:
        con = await asyncpg.connect(postgres.sink.to)
        async with con.transaction():
            await con.execute(f"lock table {TABLE} in exclusive mode")
            with pytest.raises(SinkError, match="another session has held") as refused:
                await asyncio.to_thread(postgres.deliver)
            assert refused.value.transient
        await con.close()

    asyncio.run(hold_meanwhile())
    assert postgres.rows() == FIRST
    assert postgres.deliver().delivered == [MONDAY]


def test_a_server_that_refuses_or_is_gone_is_told_without_the_password(
    postgres: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "a wrong secret")
    with pytest.raises(SinkError, match="password authentication failed") as refused:
        postgres.deliver()
    assert "secret" not in str(refused.value)
    gone = f"postgresql://shop@127.0.0.1:{servers.free_port()}/postgres"
    postgres.sink = postgres.sink.changed({"to": gone})
    with pytest.raises(SinkError, match="can't be reached") as refused:
        postgres.deliver()
    assert refused.value.transient


def test_the_command_delivers_what_is_missing_and_fails_where_it_can_not(
    folder: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    bad = {"name": "bad", "to": str(taken)}
    monkeypatch.setenv("RECSYS_LAKE", folder.settings.lake)
    monkeypatch.setenv("RECSYS_SINKS", json.dumps([bad, folder.sink.model_dump(mode="json")]))
    with pytest.raises(SinkError, match="not delivered to bad"):
        lists.deliver(run_date=None, sink=None)
    assert folder.rows() == FIRST, "the other sink got its lists all the same"
    lists.deliver(run_date=None, sink="shop")
    statuses = {row["status"]: row["outcome"] for row in folder.lake.rows(columns.RUNS).to_pylist()}
    assert set(statuses) == {"refused", "completed"}
    assert json.loads(statuses["completed"])["deliver shop"]["unchanged"] == 1
    with pytest.raises(SinkError, match="no lists for 2026-01-01"):
        lists.deliver(run_date=datetime(2026, 1, 1), sink="shop")
    with pytest.raises(ConfigurationError, match="no sink web; the settings have bad, shop"):
        lists.deliver(run_date=None, sink="web")
