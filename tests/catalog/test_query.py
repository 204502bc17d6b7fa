"""SQL on the catalog: what it may reach, and how its rows come out."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.catalog.publish import publish_catalog
from recsys.catalog.query import query_catalog, stream_catalog
from recsys.cli.prompt import Prompt
from recsys.errors import LakeError
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from recsys.terminal import render_table, write_rows
from tests import lakes, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTSIDE = "secret of another folder"


@pytest.fixture(scope="module", params=["local", "s3"])
def lake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("query")
    if request.param == "local":
        lake = Lake(str(folder / "lake"), ObjectStorage())
        lakes.fill(lake, {1: [10, 11], 2: [12]})
        publish_catalog(lake)
        yield lake
        return
    with pytest.MonkeyPatch.context() as patch, servers.rclone_s3(folder / "s3") as endpoint:
        servers.use_credentials(patch)
        store = servers.client(endpoint)
        store.create_bucket(Bucket="lake")
        store.put_object(Bucket="lake", Key="other/secret.csv", Body=OUTSIDE.encode())
        lake = Lake("s3://lake/nightly", ObjectStorage(endpoint_url=endpoint, single_writer=True))
        lakes.fill(lake, {1: [10, 11], 2: [12]})
        publish_catalog(lake)
        yield lake


def count(lake: Lake, statement: str) -> int:
    return query_catalog(lake, statement).num_rows


@pytest.mark.slow
def test_what_reads_is_run(lake: Lake) -> None:
    assert count(lake, "select * from interactions") == 3
    assert count(lake, "from interactions where user_id = 1") == 2
    assert count(lake, "with few as (select 1) select * from few") == 1
    assert count(lake, "pivot interactions on user_id using count(*) group by item_id") == 3
    assert count(lake, "describe interactions") > 3
    assert count(lake, "select * from duckdb_columns() where table_name = 'runs'") > 3


@pytest.mark.parametrize(
    "statement",
    [
        "copy (select 1) to '{lake}/mine.csv'",
        "copy interactions to '{outside}/mine.csv'",
        "explain analyze copy (select 1) to '{lake}/mine.csv'",
        "export database '{outside}/copy'",
        "attach '{outside}/other.duckdb'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "reset lock_configuration",
        "create temp table mine as select 1",
        "delete from latest_recommendations",
        "pragma database_list",
        "call pragma_version()",
        "checkpoint",
        "select 1; select 2",
        "",
        "select * from read_csv('{outside}/secret.csv')",
        "select * from read_text('{outside}/secret.csv')",
        "select * from read_blob('/proc/self/environ')",
        "select * from '{outside}/secret.csv'",
        "select * from '{lake}/../outside/secret.csv'",
        "select * from read_text('{lake}/link.csv')",
        "select * from read_text('{lake}-other/secret.csv')",
        "select * from glob('{outside}/*')",
        "select * from sniff_csv('{outside}/secret.csv')",
        "select * from read_text('http://127.0.0.1:1/secret.csv')",
        "select * from read_text('s3://lake/other/secret.csv')",
        "select * from duckdb_secrets()",
        "select getenv('PATH')",
        "select * from outside_rows",
        "select * from query('copy (select 1) to ''{outside}/mine.csv''')",
        "select * from read_csv('/etc/passwd')",
        "select * from read_csv('//etc//passwd')",
        "select * from 'file:///etc/passwd'",
        "select * from read_text('/proc/self/mem')",
        "select * from read_text('{lake}/./../outside/secret.csv')",
        "select * from read_csv(['{lake}/none.csv', '{outside}/secret.csv'])",
        "select * from read_json('{outside}/secret.csv')",
        "select * from parquet_metadata('{outside}/secret.csv')",
        "select * from read_text('hf://datasets/a/b.csv')",
        "select * from query('select * from read_text(''{outside}/secret.csv'')')",
        "select * from query_table('{outside}/secret.csv')",
        "attach 'http://127.0.0.1:1/other.duckdb'",
        "attach ':memory:' as other",
        "use memory",
        "detach catalog",
        "set memory_limit = '1TB'",
        "set global threads = 1000",
        "pragma enable_profiling = 'json'",
        "set profiling_output = '{outside}/mine.csv'",
        "set temp_directory = '{outside}'",
        "set extension_directory = '{outside}'",
        "set custom_extension_repository = 'http://127.0.0.1:1'",
        "set file_search_path = '{outside}'",
        "set allowed_directories = ['{outside}']",
        "create secret (type s3, key_id 'a', secret 'b')",
        "create view mine as select 1",
        "create macro mine() as 1",
        "insert into tables select * from tables",
        "update tables set lake = ''",
        "drop view interactions",
        "alter table tables add column mine int",
        "truncate tables",
        "vacuum",
        "prepare mine as select 1",
        "execute mine",
        "begin transaction",
        "import database '{outside}'",
        "comment on table tables is 'mine'",
        "select * from which_secret('s3://lake/other/secret.csv', 's3')",
        "select * from sqlite_scan('{outside}/secret.csv', 't')",
    ],
)
def test_what_writes_or_reaches_outside_is_refused(
    lake: Lake, tmp_path: Path, statement: str, record_property: pytest.RecordProperty
) -> None:
    if "link" in statement and not lake.is_local:
        pytest.skip("a store has no links")
    outside_rows = pa.table({"text": [OUTSIDE]})  # DuckDB finds variables of Python by their name
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_text(OUTSIDE)
    if lake.is_local:
        beside = Path(f"{lake.root}-other")
        beside.mkdir(exist_ok=True)
        (beside / "secret.csv").write_text(OUTSIDE)
        link = Path(lake.root) / "link.csv"
        link.unlink(missing_ok=True)
        link.symlink_to(outside / "secret.csv")
    with pytest.raises(LakeError) as refused:
        query_catalog(lake, statement.format(lake=lake.root, outside=outside))
    assert OUTSIDE not in str(refused.value)
    assert [path.name for path in outside.iterdir()] == ["secret.csv"]
    if lake.is_local:
        assert not (Path(lake.root) / "mine.csv").exists()
        # The same statement on S3 is no other input.
        record_property("counted hostile inputs", "statement of recsys sql")
    assert len(outside_rows) == 1


def test_unsafe_reaches_other_files_and_still_not_the_catalog(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a\n7\n")
    statement = f"select a from '{tmp_path}/mine.csv'"
    with stream_catalog(lake, statement, unsafe=True) as rows:
        assert rows.read_all().to_pylist() == [{"a": 7}]
    with (
        pytest.raises(LakeError, match="read-only"),
        stream_catalog(lake, "delete from latest_recommendations", unsafe=True),
    ):
        pass


ROWS = {"user_id": [1, 2], "title": ["a,b", "it's\n\x1b[31mred"], "score": [0.5, None]}


def written(output_format: str) -> bytes:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    write_rows(pa.table(ROWS).to_reader(max_chunksize=1), output_format, out)
    return raw.getvalue()


def test_every_format_holds_every_row() -> None:
    expected = pa.table(ROWS).to_pylist()
    assert json.loads(written("json")) == expected
    assert list(csv.reader(io.StringIO(written("csv").decode(), newline=""))) == [
        ["user_id", "title", "score"],
        ["1", "a,b", "0.5"],
        ["2", "it's\n\x1b[31mred", ""],
    ]
    assert pq.read_table(pa.BufferReader(written("parquet"))).to_pylist() == expected
    assert b"0.5000" in written("table")


def test_no_rows_are_written_as_such() -> None:
    out = io.StringIO()
    write_rows(pa.table(ROWS).slice(0, 0).to_reader(), "json", out)
    assert json.loads(out.getvalue()) == []


def test_a_title_does_not_command_the_terminal() -> None:
    shown = render_table(pa.table(ROWS))
    assert "\x1b" not in shown
    assert r"\x1b[31mred" in shown


def test_a_long_table_is_cut_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    numbers = pa.table({"n": range(2_500)}).to_reader(max_chunksize=700)
    write_rows(numbers, "table", out)
    assert " 999 " in out.getvalue()
    assert " 1000 " not in out.getvalue()
    assert "the first 1,000 rows" in capsys.readouterr().err


@pytest.mark.slow
def test_the_prompt_runs_statements_of_several_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    statements: list[str] = []

    def run(statement: str) -> None:
        statements.append(statement)
        if "wrong" in statement:
            raise LakeError("DuckDB refused the statement")

    prompt = Prompt(["items", "item_id", "user_list"], run)
    for line in ("select 1;", "", "select wrong;", "select", "  2", "-- three;", "user_list"):
        assert not prompt.onecmd(line)
    assert statements == ["select 1", "select wrong", "select\n  2\n-- three", "user_list"]
    assert "DuckDB refused the statement" in capsys.readouterr().err
    assert prompt.completedefault("item") == ["items", "item_id"]
    assert prompt.onecmd("quit")
    assert prompt.onecmd("EOF")


@pytest.mark.slow
def test_the_prompt_reads_its_input(lake: Lake) -> None:
    if not lake.is_local:
        pytest.skip("once is enough")
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "recsys.cli", "--lake", lake.root, "sql", "-f", "csv"],
        input="select user_id\nfrom interactions\nwhere item_id = 12;\nnonsense;\nquit\n",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TERM": "dumb"},
    )
    assert done.returncode == 0, done.stderr
    assert "user_id\n2\n" in done.stdout
    assert "DuckDB refused" in done.stderr or "there is no query" in done.stderr
