from __future__ import annotations

import ast
from pathlib import Path

import duckdb
import pytest

from recsys.lake.engine import Limits, open_duckdb
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
