"""Files that are not what they seem: half-written, changing, left over, or a table's."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import columns
from recsys.errors import SourceError
from recsys.ingest import sources, text_files
from recsys.ingest.batch import ingest
from recsys.ingest.items import ingest_items
from recsys.lake.tables import Lake
from recsys.settings import Contract, ItemSource, ObjectStorage, Settings, Source
from tests import lakes, servers
from tests.ingest.test_sources import HEADER, Staging, con, stage, text

__all__ = ["con", "stage"]  # fixtures

DAY = "2026-01-02"


@pytest.fixture
def lenient(settings: Settings) -> Settings:
    return settings.model_copy(update={"contract": Contract(max_rejected_share=1.0)})


def table(users: list[int]) -> pa.Table:
    days = [datetime(2026, 1, 2, tzinfo=UTC)] * len(users)
    return pa.table({"user_id": users, "item_id": users, "timestamp": days})


# --- the end of a file


@pytest.mark.slow
def test_a_half_written_last_line_is_not_a_row_for_good(
    lake: Lake, lenient: Settings, tmp_path: Path
) -> None:
    whole = HEADER + "1,11,2026-01-02\n2,22,2026-01-02T10:11:12Z\n"
    file = text(tmp_path / "a.csv", whole[:-5])
    first = ingest(lake, lenient, Source(uri=str(file)))
    assert (first.accepted, first.quarantined) == (1, 1)
    (row,) = lake.rows(columns.QUARANTINE).to_pylist()
    assert row["reasons"] == ["last line has no line end: it may be half-written"]
    text(file, whole)
    assert ingest(lake, lenient, Source(uri=str(file))).accepted == 1
    rows = lake.rows(columns.INTERACTIONS).to_pylist()
    assert {(row["user_id"], row["timestamp"].hour) for row in rows} == {(1, 0), (2, 10)}


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_last_line_with_an_end_is_a_row(stage: Staging, tmp_path: Path, line_end: str) -> None:
    file = tmp_path / "a.csv"
    content = f"{HEADER}1,2,{DAY}\n3,4,{DAY}\n".replace("\n", line_end)
    file.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert [(row[0], row[3], row[4]) for row in stage(file)] == [(1, 2, None), (3, 3, None)]
    file.write_bytes(content.encode()[: -len(line_end)])
    assert [row[4] is None for row in stage(file)] == [True, False]


def test_lines_that_end_in_cr_alone_are_lines(
    lake: Lake, settings: Settings, stage: Staging, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(f'{HEADER}1,"a,b",{DAY}\n3,4\n5,6,{DAY}\n'.replace("\n", "\r").encode())
    assert [(row[0], row[1], row[3]) for row in stage(file)] == [
        (1, "a,b", 2),
        (None, None, 3),
        (5, "6", 4),
    ]
    lakes.fill(lake, {1: [7]})
    (tmp_path / "items.csv").write_bytes(b"item_id,title\r7,Seven\r")
    assert ingest_items(lake, settings, ItemSource(uri=str(tmp_path / "items.csv"))).rows == 1


@pytest.mark.parametrize("length", [131_073, 1 << 20])
def test_a_header_of_any_length_is_read_or_refused(
    stage: Staging, tmp_path: Path, length: int
) -> None:
    long = "x" * length
    file = text(tmp_path / "a.csv", f"{long},{HEADER}0,1,2,{DAY}\n")
    if length < 1 << 20:
        assert len(stage(file)) == 1
        return
    with pytest.raises(SourceError, match="its first line is longer than 1,048,576 bytes"):
        stage(file)


def test_a_header_that_is_not_csv_is_refused(stage: Staging, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"user_id,item_id\r,timestamp\n1,2,3\n")
    with pytest.raises(SourceError, match="its first line can't be read as CSV"):
        stage(tmp_path / "a.csv")


@pytest.mark.slow
@pytest.mark.parametrize("odd", [b"5,6\n", b'5,"6",2026-01-02\n', b"5,6,2026-01-02"])
def test_small_files_that_are_read_as_one_have_the_rows_and_faults_of_each(
    lenient: Settings, tmp_path: Path, odd: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        body = b"".join(b"%d,%d,%s\n" % (number, row, DAY.encode()) for row in range(3))
        body = odd + body if number == 2 else body + b"x\n" + (odd if number == 4 else b"")
        body = b"" if number == 3 else body
        (tmp_path / f"{number}.csv").write_bytes(HEADER.encode() + body)

    def places(name: str) -> list[tuple[Any, ...]]:
        lake = Lake(str(tmp_path / name), lenient.s3)
        result = ingest(lake, lenient, Source(uri=str(tmp_path / "*.csv")))
        assert result.rows_in == result.accepted + result.quarantined + result.duplicates
        refused = lake.rows(columns.QUARANTINE).to_pylist()
        names = ("object", "source_row", "row", "reasons")
        return sorted([tuple(map(str, (row[name] for name in names))) for row in refused])

    reads = []
    read = text_files._read_csv
    monkeypatch.setattr(text_files, "_read_csv", lambda *one: reads.append(one[3]) or read(*one))
    together = places("together")
    assert len(reads) < 5, "some are read as one"
    assert [(Path(row[0]).name, row[1]) for row in together][:2] == [("0.csv", "5"), ("1.csv", "5")]
    monkeypatch.setattr(text_files, "join_plain", lambda *_: None)
    assert places("alone") == together


def _quoted(number: int) -> str:
    return f'{number},"item, {number}",{number}'


@pytest.mark.parametrize(
    ("name", "ends", "lines", "is_finished"),
    [
        ("csv", "\n", _quoted, True),
        ("csv", "\r\n", _quoted, True),
        ("csv", "\n", "{0},{0},{0}".format, False),
        ("csv.gz", "\r\n", "{0},{0},{0}".format, False),
    ],
)
def test_csv_files_as_others_write_them_are_read_as_one(
    stage: Staging,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    ends: str,
    lines: Callable[[int], str],
    is_finished: bool,
) -> None:
    """Of thousands of small files, to read each alone takes many minutes."""
    for number in range(8):
        rows = [lines(row) for row in range(number % 4)]  # some have none
        content = ends.join([HEADER.strip(), *rows]) + (ends if is_finished else "")
        path = tmp_path / f"{number}.{name}"
        path.write_bytes((gzip.compress if "gz" in name else bytes)(content.encode()))
    reads = []
    read = text_files._read_csv
    monkeypatch.setattr(text_files, "_read_csv", lambda *one: reads.append(one[3]) or read(*one))
    together = stage(tmp_path / f"*.{name}")
    assert (len(together), len(reads)) == (12, 1)
    assert len([row for row in together if row[4]]) == (
        6 if ends == "\n" and not is_finished else 0
    )
    monkeypatch.setattr(text_files, "join_plain", lambda *_: None)
    assert stage(tmp_path / f"*.{name}") == together


def test_one_csv_file_that_is_not_like_the_others_costs_few_more_reads(
    stage: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(64):
        item = '"a""b"' if number != 40 else '"a\n""b"'  # a quoted line end
        text(tmp_path / f"{number:02}.csv", f"{HEADER}{number},{item},7\n")
    tries = []
    join = text_files.join_plain
    monkeypatch.setattr(text_files, "join_plain", lambda *one: tries.append(one) or join(*one))
    rows = stage(tmp_path / "*.csv")
    assert [row[0] for row in rows] == list(range(64))
    assert rows[40][1] == 'a\n"b'
    assert len(tries) < 20


def test_json_files_with_other_columns_are_read_as_if_alone(
    stage: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {"user_id": 1, "timestamp": 7}
    for number, more in enumerate(
        [
            {"item_id": 0},
            {"item_id": 1, "event": "view"},
            {"Item_ID": 2},
            {"Item_ID": 3, "EVENT": "buy"},
            {"item_id": 4, "Event": "buy", "EVENT": "view"},  # neither is meant
            {"item_id": 5, "event": "view"},
        ]
    ):
        broken = "x" if number == 3 else ""
        text(tmp_path / f"{number}.jsonl", f"\n{json.dumps(ids | more)}\n{broken}")
    text(tmp_path / "3b.jsonl", "\n\n")

    def read() -> list[tuple[Any, ...]]:
        rows = stage(tmp_path / "*.jsonl")
        events = stage.con.execute("select event from staged_rows order by rowid").fetchall()
        counts = stage.con.execute("select first_row, rows from objects").fetchall()
        return [rows, events, counts]

    together = read()
    assert [row[1] for row in together[0]] == [0, 1, 2, 3, None, 4, 5]
    assert [row[3] for row in together[0]] == [2, 2, 2, 2, 3, 2, 2]
    assert [event for (event,) in together[1]] == [None, "view", None, "buy", None, None, "view"]
    monkeypatch.setattr("recsys.ingest.text_files.CHUNK", 1)
    assert read() == together


# --- other writers


@pytest.mark.slow
def test_a_file_that_changes_while_it_is_read_is_refused_whole(
    lake: Lake, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = text(tmp_path / "a.csv", f"{HEADER}1,2,{DAY}\n")
    fetch = sources.fetch

    def grown(*arguments: Any) -> Any:
        paths = fetch(*arguments)
        with file.open("a") as more:
            more.write(f"3,4,{DAY}\n")
        return paths

    monkeypatch.setattr(sources, "fetch", grown)
    with pytest.raises(SourceError, match="changed while it was read") as refusal:
        ingest(lake, settings, Source(uri=str(file)))
    assert refusal.value.transient
    assert not lake.exists(columns.INTERACTIONS)
    monkeypatch.undo()
    assert ingest(lake, settings, Source(uri=str(file))).accepted == 2


def test_leftovers_of_writers_are_not_read(stage: Staging, tmp_path: Path) -> None:
    for name in ("a.parquet", "_temporary/0/b.parquet", "day/c.parquet", "day/_tmp.parquet"):
        (tmp_path / "events" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table([len(name)]), tmp_path / "events" / name)
    os.rename(tmp_path / "events", tmp_path / "_exports")
    folder = tmp_path / "_exports"
    assert [row[0] for row in stage(folder / "**" / "*.parquet")] == [9, 13]
    assert [row[0] for row in stage(folder / "*" / "*.parquet")] == [13]
    assert [row[0] for row in stage(folder / "*" / "_*.parquet")] == [16], "asked for"
    assert [row[0] for row in stage(folder / "_temporary" / "0" / "b.parquet")] == [22]


@pytest.mark.slow
@pytest.mark.parametrize("deletes", [False, True])
def test_a_delta_table_is_read_as_one(
    lake: Lake, lenient: Settings, tmp_path: Path, deletes: bool
) -> None:
    folder = tmp_path / "events"
    for users in ([1, 2], [3]):
        deltalake.write_deltalake(folder, table(users), mode="append")
    if deletes:
        deltalake.DeltaTable(folder).delete("user_id = 2")
    for pattern in ("*.parquet", "**/*.parquet"):
        with pytest.raises(
            SourceError, match=r"files of the Delta table .*; give the table itself"
        ):
            ingest(lake, lenient, Source(uri=f"{folder}/{pattern}"))
    source = Source(uri=str(folder))
    ingest(lake, lenient, source)
    expected = [1, 3] if deletes else [1, 2, 3]
    assert sorted(lake.rows(columns.INTERACTIONS)["user_id"].to_pylist()) == expected
    assert ingest(lake, lenient, source).status == "nothing new"
    deltalake.write_deltalake(folder, table([9]), mode="append")
    grown = ingest(lake, lenient, source)
    assert (grown.rows_in, grown.accepted, grown.objects) == (1, 1, 1)


def test_items_may_be_a_delta_table(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    lakes.fill(lake, {1: [7, 8]})
    folder = tmp_path / "products"
    deltalake.write_deltalake(folder, pa.table({"item_id": [7, 8], "title": ["A", "B"]}))
    deltalake.DeltaTable(folder).delete("item_id = 8")
    assert ingest_items(lake, settings, ItemSource(uri=str(folder))).rows == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_line_that_is_too_long_is_quarantined_and_one_far_too_long_refuses_the_file(
    stage: Staging, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    for megabytes in (3, 7, 17, 40):
        note = "y" * (megabytes << 20)
        content = f"{HEADER[:-1]},note\n1,2,{DAY},x\n3,4,{DAY},{note}\n5,6,{DAY},z\n".encode()
        file.write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
        if megabytes > 16:
            with pytest.raises(SourceError, match=rf"{name}: the line at byte .* is longer than 8"):
                stage(file)
        else:
            staged = [(row[0], row[3], row[4]) for row in stage(file)]
            assert staged == [(1, 2, None), (None, 3, "line is not CSV"), (5, 4, None)]


@pytest.mark.slow
def test_a_delta_table_on_s3_is_read_as_one(
    lake: Lake, lenient: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        storage = ObjectStorage(endpoint_url=endpoint, region="us-east-1")
        settings = lenient.model_copy(update={"s3": storage})
        servers.client(endpoint).create_bucket(Bucket="shop")
        options, uri = storage.delta_options(), "s3://shop/a/events"
        rows = table([1, 2, 3]).append_column("day", pa.array(["a", "a", "b"]))
        deltalake.write_deltalake(uri, rows, partition_by=["day"], storage_options=options)
        deltalake.DeltaTable(uri, storage_options=options).delete("user_id = 2")
        for pattern in ("s3://shop/**/*.parquet", f"{uri}/day=a/*.parquet"):
            with pytest.raises(SourceError, match=rf"Delta table {uri}, .* uri = '{uri}'"):
                ingest(lake, settings, Source(uri=pattern))
        ingest(lake, settings, Source(uri=uri))
        assert sorted(lake.rows(columns.INTERACTIONS)["user_id"].to_pylist()) == [1, 3]
        assert ingest(lake, settings, Source(uri=f"{uri}/")).status == "nothing new"
        with pytest.raises(SourceError, match="s3://shop/none can't be read as a Delta table"):
            ingest(lake, settings, Source(uri="s3://shop/none"))
