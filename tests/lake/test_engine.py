from __future__ import annotations

import ast
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from recsys.errors import DamagedError
from recsys.lake.engine import Limits, open_duckdb, select_files
from recsys.lake.tables import Lake
from recsys.settings import Settings

ROOT = Path(__file__).parents[2]
OPENER = ROOT / "recsys/lake/engine.py"


def opens(source: str) -> list[int]:
    """Lines that use a function of the module duckdb: it opens a database, if but the default one.

    Classes (errors and types) open nothing.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("duckdb"):
            found += [node.lineno for name in node.names if not name.name[0].isupper()]
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "duckdb":
            found += [node.lineno] * (not node.attr[0].isupper())
    return found


@pytest.mark.slow
def test_duckdb_is_opened_in_one_place() -> None:
    files = [*ROOT.glob("recsys/**/*.py"), *ROOT.glob("flows/**/*.py")]
    assert OPENER in files
    assert opens(OPENER.read_text()), "or this test sees nothing"
    for planted in ("duckdb.connect()", "duckdb.sql('select 1')", "from duckdb import connect"):
        assert opens(f"import duckdb\n{planted}") == [2]
    found = {str(file): lines for file in files if (lines := opens(file.read_text()))}
    assert list(found) == [str(OPENER)]


@pytest.mark.parametrize("is_file", [False, True])
def test_every_duckdb_keeps_to_the_settings(tmp_path: Path, *, is_file: bool) -> None:
    settings = Settings(lake=str(tmp_path / "lake"), memory_limit="123MB", threads=2)
    for limits in (settings, Lake.from_settings(settings).limits):
        with open_duckdb(limits, tmp_path / "file.duckdb" if is_file else None) as con:
            names = ("memory_limit", "threads", "TimeZone", "autoinstall_known_extensions")
            said = [con.execute(f"select current_setting('{name}')").fetchall() for name in names]
            assert [value for ((value,),) in said] == ["117.3 MiB", 2, "UTC", False]
            spill = Path(str(con.sql("select current_setting('temp_directory')").fetchall()[0][0]))
            assert spill.parent.is_dir()
            assert tmp_path not in spill.parents, "nothing spills into the lake"
        assert not spill.parent.exists()


def test_limits_are_those_of_the_settings_where_nothing_is_set() -> None:
    assert Limits() == Limits(Settings().memory_limit, Settings().threads)


def test_what_is_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "file.duckdb"
    with open_duckdb(Limits(), file) as con:
        con.execute("create table t as select 1 as one")
    with open_duckdb(Limits(), file, read_only=True) as con:
        assert con.sql("from t").fetchall() == [(1,)]
        with pytest.raises(duckdb.Error, match="read-only"):
            con.execute("insert into t values (2)")


def days(table: DeltaTable, where: str = "true") -> list[tuple[int, str | None]]:
    with open_duckdb(Limits()) as con:
        con.execute(f"create view days as {select_files(con, table)}")
        return con.sql(f"select day, word from days where {where} order by day").fetchall()


def test_a_file_that_lacks_a_new_column_has_null_in_it(tmp_path: Path) -> None:
    write_deltalake(tmp_path, pa.table({"day": [1], "number": [1]}), partition_by=["day"])
    rows = pa.table({"day": [2], "number": [2], "word": ["two"]})
    write_deltalake(tmp_path, rows, mode="append", schema_mode="merge")
    assert days(DeltaTable(tmp_path)) == [(1, None), (2, "two")]


def test_a_query_opens_the_files_of_its_partition_and_no_other(tmp_path: Path) -> None:
    """Lists of 90 nights are 90 files: to open all for the names of their columns took long."""
    for day in (1, 2, 3):
        rows = pa.table({"day": [day], "word": [f"word {day}"]})
        write_deltalake(tmp_path, rows, mode="append", partition_by=["day"])
    (file,) = (tmp_path / "day=2").glob("*.parquet")
    file.write_bytes(b"not Parquet")
    assert days(DeltaTable(tmp_path), "day = 3") == [(3, "word 3")]
    with pytest.raises(DamagedError, match="day=2"):
        days(DeltaTable(tmp_path))
