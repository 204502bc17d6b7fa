from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from recsys.catalog.publish import publish_catalog
from recsys.catalog.query import CATALOG_FILE, query_catalog
from recsys.catalog.views import VIEWS, View
from recsys.errors import LakeError
from recsys.lake.schemas import TABLES, Table, schemas
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import lakes

DAY = date(2026, 1, 2)


def with_lists(lake: Lake, items: list[int], day: date = DAY) -> None:
    if not lake.exists("interactions"):
        lakes.fill(lake, {1: [1, 2], 2: [3]})
    lakes.write(lake, "recommendations", lakes.lists(day, {1: items, 2: items}))
    lakes.write(lake, "editions", [lakes.edition(day, rows=2 * len(items))])


@pytest.mark.slow
def test_the_newest_lists_are_read_with_the_duckdb_package_alone(lake: Lake) -> None:
    with_lists(lake, [8, 9])
    with_lists(lake, [4, 5], date(2026, 1, 3))
    path = publish_catalog(lake)
    read = (
        "import duckdb, sys; con = duckdb.connect(sys.argv[1], read_only=True);"
        "con.execute('set autoinstall_known_extensions = false');"
        "print(con.sql('select user_id, rank, item_id from latest_recommendations').fetchall());"
        "print(con.sql('select count(*) from recommendations').fetchall())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", read, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[(1, 1, 4), (1, 2, 5), (2, 1, 4), (2, 2, 5)]", "[(8,)]"]
    with duckdb.connect(path, read_only=True) as con:  # of whatever age the reader's package is
        ((tags,),) = con.sql("select tags from duckdb_databases() where not internal").fetchall()
    assert tags["storage_version"] == "v1.0.0+"


@pytest.mark.slow
def test_lists_of_a_clock_that_ran_ahead_are_not_the_newest(lake: Lake) -> None:
    with_lists(lake, [8, 9])
    with_lists(lake, [4, 5], datetime.now(UTC).date() + timedelta(days=9))
    with duckdb.connect(publish_catalog(lake), read_only=True) as con:
        shown = con.sql("select distinct run_date from latest_recommendations").fetchall()
    assert shown == [(DAY,)]


@pytest.mark.slow
def test_every_view_answers_on_a_lake_that_has_only_just_been_made(lake: Lake) -> None:
    lakes.fill(lake, {"u": ["i"]})
    with duckdb.connect(publish_catalog(lake), read_only=True) as con:
        names = [*TABLES, *VIEWS]
        counts = {name: con.execute(f"select count(*) from {name}").fetchall() for name in names}
    assert counts.pop("interactions") == [(1,)]
    assert counts.pop("tables") == [(len(TABLES),)]
    assert set(map(tuple, counts.values())) == {((0,),)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [str, int])
def test_dictionary_tables_and_catalog_say_the_same(lake: Lake, kind: type) -> None:
    """Every table, view and column has its meaning, word for word; none is missing, none extra."""
    lakes.fill(lake, {kind(1): [kind(2)]})
    dictionary = {
        **{name: (table.meaning, table.meanings()) for name, table in TABLES.items()},
        **{name: (view.meaning, dict(view.columns)) for name, view in VIEWS.items()},
    }
    for name, table in TABLES.items():
        stored = lake.schema(name)
        assert stored.equals(schemas(lakes.id_type(kind(1)), lakes.id_type(kind(1)))[name])
        assert stored.names == [column.name for column in table.columns]
        folders = lake.open(name).metadata().partition_columns
        assert tuple(folders) == table.partitions
    described = "select {0}_name, comment from duckdb_{0}s() where not internal"
    with duckdb.connect(publish_catalog(lake), read_only=True) as con:
        views, stored = (dict(con.sql(described.format(k)).fetchall()) for k in ("view", "table"))
        columns = con.sql(
            "select table_name, column_name, comment from duckdb_columns() where not internal "
            "order by column_index"
        ).fetchall()
    assert set(stored) == {name for name, view in VIEWS.items() if view.is_table}
    found = {
        name: (meaning, {column: text for of, column, text in columns if of == name})
        for name, meaning in {**views, **stored}.items()
    }
    assert found == dictionary
    for name, (_, meanings) in dictionary.items():
        assert list(meanings) == list(found[name][1]), "in the order in which they are stored"


def test_a_meaning_is_one_short_sentence() -> None:
    texts = [text for each in (*TABLES.values(), *VIEWS.values()) for text in meanings(each)]
    assert len(texts) > 140
    for text in texts:
        assert text.endswith("."), text
        assert ". " not in text, text
        assert len(text) < 120, text


def meanings(described: Table | View) -> list[str]:
    columns = described.columns
    if isinstance(described, Table):
        columns = described.meanings()
    return [described.meaning, *columns.values()]


@pytest.mark.slow
def test_what_somebody_wrote_into_the_catalog_does_not_stop_its_readers(lake: Lake) -> None:
    with_lists(lake, [8, 9])
    path = publish_catalog(lake)
    write = (
        "import duckdb, os, sys; con = duckdb.connect(sys.argv[1]);"
        "con.execute('create view mine as select 1'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-I", "-c", write, path], check=False)
    assert Path(f"{path}.wal").exists()
    with_lists(lake, [4, 5], date(2026, 1, 3))
    publish_catalog(lake)
    found = query_catalog(lake, "select item_id from latest_recommendations where user_id = 1")
    assert found["item_id"].to_pylist() == [4, 5]


@pytest.mark.slow
def test_an_open_reader_keeps_its_catalog_while_a_new_one_is_published(lake: Lake) -> None:
    with_lists(lake, [8, 9])
    path = publish_catalog(lake)
    reader = (
        "import duckdb, sys; con = duckdb.connect(sys.argv[1], read_only=True);"
        "ask = lambda: con.sql('select list(item_id order by rank) from latest_recommendations "
        "where user_id = 1').fetchall()[0][0];"
        "print(ask(), flush=True); input(); print(ask())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", reader, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "[8, 9]\n"
        with_lists(lake, [4, 5], date(2026, 1, 3))
        publish_catalog(lake)
        rest, _ = process.communicate("\n", timeout=30)
    assert rest == "[8, 9]\n"
    newest = query_catalog(lake, "select item_id from latest_recommendations where user_id = 1")
    assert newest["item_id"].to_pylist() == [4, 5]


@pytest.mark.slow
def test_publishing_leaves_nothing_but_the_catalog(lake: Lake) -> None:
    with_lists(lake, [8])
    before = set(Path(lake.root).iterdir())
    publish = (
        "import os, sys; from recsys.catalog import publish; from recsys.lake.tables import Lake;"
        "from recsys.settings import ObjectStorage;"
        "publish._describe = lambda *_: os.kill(os.getpid(), 9);"
        "publish.publish_catalog(Lake(sys.argv[1], ObjectStorage()))"
    )
    subprocess.run([sys.executable, "-c", publish, lake.root], check=False)
    assert len(set(Path(lake.root).iterdir()) - before) == 1, "a killed run leaves what it built"
    publish_catalog(lake)
    assert set(Path(lake.root).iterdir()) == {*before, Path(lake.root) / CATALOG_FILE}


@pytest.mark.slow
def test_a_full_disk_leaves_the_catalog_of_before(lake: Lake) -> None:
    with_lists(lake, list(range(1, 5000)))
    path = Path(publish_catalog(lake))
    before = path.read_bytes()
    publish = (
        "import resource, sys; from recsys.catalog.publish import publish_catalog;"
        "from recsys.lake.tables import Lake;"
        "from recsys.settings import ObjectStorage;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2);"
        "publish_catalog(Lake(sys.argv[1], ObjectStorage()))"
    )
    for least in (1, 4096, len(before) // 2):
        done = subprocess.run(
            [sys.executable, "-c", publish, lake.root, str(len(before) - least)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "LakeError" in done.stderr, least
        assert path.read_bytes() == before
        assert not list(Path(lake.root).glob(".*"))


def test_asking_before_the_first_publish_says_what_to_do(lake: Lake) -> None:
    with pytest.raises(LakeError, match="run `recsys nightly` first"):
        query_catalog(lake, "select 1")


@pytest.mark.slow
def test_the_catalog_of_a_lake_that_was_copied_or_moved_is_refused(
    lake: Lake, tmp_path: Path
) -> None:
    with_lists(lake, [8, 9])
    publish_catalog(lake)
    copy = Lake(str(shutil.copytree(lake.root, tmp_path / "copy")), ObjectStorage())
    with pytest.raises(LakeError, match=rf"made for the lake at {lake.root}, .* `recsys maintain`"):
        query_catalog(copy, "select count(*) from recommendations")
    with copy.write_lock():
        publish_catalog(copy)
    assert query_catalog(copy, "select count(*) as n from recommendations")["n"].to_pylist() == [4]


def test_the_catalog_of_an_earlier_release_is_refused(lake: Lake) -> None:
    with_lists(lake, [8, 9])
    with duckdb.connect(publish_catalog(lake)) as con:
        con.execute("alter table tables drop column lake")
    with pytest.raises(LakeError, match="made by an earlier release"):
        query_catalog(lake, "select count(*) from recommendations")


def test_a_file_that_the_catalog_shows_and_that_is_gone_is_told(lake: Lake) -> None:
    with_lists(lake, [8, 9])
    publish_catalog(lake)
    (gone,) = Path(lake.root).glob("recommendations/*/*.parquet")
    gone.unlink()
    with pytest.raises(LakeError, match=f"{gone.name}.* If it is gone, `recsys maintain`"):
        query_catalog(lake, "select sum(item_id) from recommendations")


@pytest.mark.slow
def test_lists_of_more_rows_than_the_catalog_may_hold_are_a_view(lake: Lake) -> None:
    with_lists(lake, [8, 9])
    with_lists(lake, [4, 5], date(2026, 1, 3))
    read = "select user_id, rank, item_id from latest_recommendations order by all"
    found = {}
    for rows, kind in ((4, "BASE TABLE"), (3, "VIEW")):
        with duckdb.connect(publish_catalog(lake, rows), read_only=True) as con:
            found[kind] = con.sql(read).fetchall()
            titled = con.sql("select count(*) from recommendations_titled").fetchall()
            kinds = con.sql(
                "select table_type from information_schema.tables "
                "where table_name = 'latest_recommendations'"
            ).fetchall()
        assert (kinds, titled) == ([(kind,)], [(4,)])
    assert found["VIEW"] == found["BASE TABLE"] == [(1, 1, 4), (1, 2, 5), (2, 1, 4), (2, 2, 5)]
