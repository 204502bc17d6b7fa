"""Readers that are not ours, each in an environment of its own, by the examples of docs/read.md."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import DeltaTable

from recsys import columns
from recsys.catalog.publish import publish_catalog
from recsys.lake.maintenance import compact
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import lakes

YESTERDAY, TODAY = date(2026, 1, 2), date(2026, 1, 3)
MADE_AT = "2026-01-01T00:00:00+00:00"
NEWEST = [[7, 1, 10, MADE_AT], [42, 1, 12, MADE_AT], [42, 2, 10, MADE_AT]]
PAGE = Path(__file__).parents[2] / "docs" / "read.md"

# What runs in the other environment: the example, whose last expression is printed as rows.
RUN = """
import ast, datetime, json, sys
*statements, last = ast.parse(sys.stdin.read()).body
names = {}
exec(compile(ast.Module(statements, []), "docs", "exec"), names)
answer = eval(compile(ast.Expression(last.value), "docs", "eval"), names)
columns = ["user_id", "rank", "item_id", "generated_at"]
if hasattr(answer, "fetchall"):
    rows = [tuple(row) for row in answer.fetchall()]
elif hasattr(answer, "rows"):
    rows = answer.select(columns).rows()
else:
    rows = [tuple(row) for row in answer[columns].itertuples(index=False)]
utc = datetime.timezone.utc
told = lambda v: v.astimezone(utc).isoformat() if isinstance(v, datetime.datetime) else int(v)
print(json.dumps(sorted([told(value) for value in row] for row in rows)))
"""
CATALOG = """
import duckdb

con = duckdb.connect("lake/catalog.duckdb", read_only=True)
names = con.sql("select table_name from information_schema.tables").fetchall()
assert len(names) > 20
for (name,) in names:
    con.sql(f'select * from "{name}"').fetchall()
con.sql("select user_id, rank, item_id, generated_at from latest_recommendations")
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake whose newest night has two editions, after deletions and a merge."""
    folder = tmp_path_factory.mktemp("shop")
    lake = Lake(str(folder / "lake"), ObjectStorage())
    lakes.fill(lake, {42: [10, 11], 7: [12], 8: [10]})
    items = [{"item_id": item, "title": f"Title {item}", "eligible": True} for item in (10, 11, 12)]
    lakes.write(lake, columns.ITEMS, items)
    lakes.write(lake, columns.RECOMMENDATIONS, lakes.lists(YESTERDAY, {42: [12], 7: [10, 11]}))
    lakes.write(lake, columns.RECOMMENDATIONS, lakes.lists(TODAY, {42: [10], 7: [11]}))
    second = lakes.lists(TODAY, {42: [12, 10], 7: [10], 8: [11]}, edition=2)
    lakes.write(lake, columns.RECOMMENDATIONS, second)
    editions = [lakes.edition(YESTERDAY), lakes.edition(TODAY, status="withdrawn")]
    lakes.write(lake, columns.EDITIONS, [*editions, lakes.edition(TODAY, 2)])
    DeltaTable(lake.uri(columns.RECOMMENDATIONS)).delete("user_id = 8")
    compact(lake, columns.RECOMMENDATIONS, dry_run=False)
    publish_catalog(lake)
    return folder


def example(package: str, language: str = "python") -> str:
    """The example of the page that begins with what a package is imported or started by."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (text,) = (one for one in found if re.match(rf"(import|from|duckdb) ?{package}", one))
    return str(text)


def read(python: str | Path, folder: Path, text: str) -> Any:
    done = subprocess.run(
        [python, "-I", "-c", RUN],
        input=text,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("text", [CATALOG, example("deltalake")], ids=["duckdb", "pandas"])
def test_the_packages_that_are_here_read_the_newest_lists(shop: Path, text: str) -> None:
    assert read(sys.executable, shop, text) == NEWEST


def test_reading_the_folder_as_parquet_gives_rows_that_do_not_count(shop: Path) -> None:
    rows = pd.read_parquet(shop / "lake" / "recommendations")
    assert len(rows) > len(DeltaTable(shop / "lake" / "recommendations").to_pandas()) > len(NEWEST)
    assert 8 in set(rows["user_id"]), "also rows that were deleted"


def environment(folder: Path, *packages: str) -> Path:
    """Make an environment with some packages, the newest where no version is asked for."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / "bin"
    install = [programs / "pip", "install", "-q", "--only-binary", ":all:", *packages]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(packages)} can't be had here: {done.stderr[-200:]}")
    return programs


@pytest.mark.long
@pytest.mark.parametrize(
    ("packages", "text"),
    [
        (("duckdb==1.0.0", "pytz"), CATALOG),
        (("duckdb==1.5.6", "pytz"), CATALOG),
        (("duckdb>=2", "pytz"), CATALOG),
        (("polars", "deltalake"), example("polars")),
        (("pandas", "pyarrow", "deltalake"), example("deltalake")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_other_packages_read_the_newest_lists(
    shop: Path, tmp_path: Path, packages: tuple[str, ...], text: str
) -> None:
    assert read(environment(tmp_path, *packages) / "python", shop, text) == NEWEST


@pytest.mark.long
def test_the_command_line_of_duckdb_reads_the_newest_lists(shop: Path, tmp_path: Path) -> None:
    _, *words = shlex.split(example("", "sh"))
    command = [environment(tmp_path, "duckdb-cli") / "duckdb", "-json", *words]
    done = subprocess.run(command, cwd=shop, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [list(row.values()) for row in json.loads(done.stdout)] == [row[:3] for row in NEWEST]
