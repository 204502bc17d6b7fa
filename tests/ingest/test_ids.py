"""An id is what is written: its type is decided once, by all values that stand."""

from __future__ import annotations

import decimal
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import columns
from recsys.errors import SourceError
from recsys.ingest.batch import ingest
from recsys.ingest.items import ingest_items
from recsys.lake.tables import Lake
from recsys.settings import Contract, ItemSource, Settings, Source
from tests import lakes
from tests.ingest.test_sources import HEADER, Staging, con, duck, stage, text

__all__ = ["con", "stage"]  # fixtures

DAY = "2026-01-02"


def csv(path: Path, users: list[Any]) -> Path:
    return text(path, HEADER + "".join(f"{user},1,{DAY}\n" for user in users))


def typed(path: Path, users: pa.Array) -> Path:
    days = pa.array([20_455] * len(users), pa.date32())
    pq.write_table(
        pa.table({"user_id": users, "item_id": [1] * len(users), "timestamp": days}), path
    )
    return path


# --- who has a vote


@pytest.mark.parametrize("odd", ["\\N", "NULL", "NA", "nan", "guest", " 7", "1e2", "00101", "7.5"])
def test_one_odd_token_does_not_make_integers_text(
    stage: Staging, tmp_path: Path, odd: str
) -> None:
    users = [*range(30), odd]
    rows = stage(csv(tmp_path / "a.csv", users))
    assert [row[0] for row in rows] == [*range(30), None]
    assert rows[30][4] == "user_id is not an integer"
    raw = stage.con.execute("select raw_row from staged_rows where fault is not null").fetchall()
    assert json.loads(raw[0][0])["user_id"] == odd, "nothing is lost"


@pytest.mark.parametrize(
    "line", ["user_id,item_id,timestamp", "guest,1,never", "guest,,2026-01-02"]
)
def test_rows_that_do_not_stand_have_no_vote(stage: Staging, tmp_path: Path, line: str) -> None:
    file = text(tmp_path / "a.csv", HEADER + f"7,1,{DAY}\n{line}\n" * 3)
    assert {row[0] for row in stage(file)} == {7, None}


def test_words_for_nothing_have_no_vote_and_are_text_where_ids_are(
    stage: Staging, tmp_path: Path
) -> None:
    rows = stage(csv(tmp_path / "a.csv", ["NULL", "NULL", 7]))
    assert [row[0] for row in rows] == [None, None, 7]
    rows = stage(csv(tmp_path / "b.csv", ["NA", "u1"]))
    assert [row[0] for row in rows] == ["NA", "u1"], "an id is what is written"


# --- what is written


def test_whole_numbers_with_a_fraction_are_the_integers_that_they_are(
    stage: Staging, tmp_path: Path
) -> None:
    assert [row[0] for row in stage(csv(tmp_path / "a.csv", ["13.0", "13", "-4.00"]))] == [
        13,
        13,
        -4,
    ]
    lines = [json.dumps({"user_id": u, "item_id": 1, "timestamp": DAY}) for u in (13.0, 13, 7.5)]
    rows = stage(text(tmp_path / "a.jsonl", "\n".join(lines * 10)))
    assert [row[0] for row in rows[:3]] == [13, 13, None]
    assert rows[2][4] == "user_id is not an id"
    assert [row[0] for row in stage(csv(tmp_path / "b.csv", ["13.0", "v1"]))] == ["13.0", "v1"]


@pytest.mark.parametrize(
    ("users", "expected", "faults"),
    [
        (pa.array([13.0, None, 2.0]), [13, None, 2], {}),
        (pa.array([13.0, float("nan")]), [13, None], {}),
        (pa.array([13.0, 102.6]), [13, None], {1: "user_id is not an integer"}),
        (pa.array([2.0**53, 2.0**53 - 1]), [None, 2**53 - 1], {0: "user_id is not an integer"}),
        (pa.array([2.0**24, 5], pa.float32()), [None, 5], {0: "user_id is not an integer"}),
        (
            pa.array([decimal.Decimal(10**30), decimal.Decimal(7)], pa.decimal128(38, 0)),
            [None, 7],
            {0: "user_id is not an integer"},
        ),
        (pa.array([decimal.Decimal("7.25")]), [None], {0: "user_id is not an integer"}),
        (pa.array([2**64 - 1, 7], pa.uint64()), [None, 7], {0: "user_id is beyond 64 bits"}),
        (pa.array(["a", "B", "a"]).dictionary_encode(), ["a", "B", "a"], {}),
        (pa.array([None, None]), [None, None], {}),
        (pa.array([b"ann", "é".encode(), None]), ["ann", "é", None], {}),
        (pa.array([b"ann", b"\xff\xfe"]), ["ann", None], {1: "user_id is not UTF-8 text"}),
        (
            pa.array([bytes(range(240, 256)), b"0123456789abcdef"], pa.binary(16)),
            [None, "0123456789abcdef"],
            {0: "user_id is not UTF-8 text"},
        ),
    ],
)  # fmt: skip
def test_typed_ids_are_exact_or_a_fault(
    stage: Staging, tmp_path: Path, users: pa.Array, expected: list[Any], faults: dict[int, str]
) -> None:
    rows = stage(typed(tmp_path / "a.parquet", users))
    assert [row[0] for row in rows] == expected
    assert {number: row[4] for number, row in enumerate(rows) if row[4]} == faults


def test_bytes_are_integers_where_the_setting_says_so(stage: Staging, tmp_path: Path) -> None:
    file = typed(tmp_path / "a.parquet", pa.array([b"7", b"x", b"\xff"]))
    rows = stage(file, user_id_type="integer")
    assert [(row[0], row[4]) for row in rows] == [
        (7, None),
        (None, "user_id is not an integer"),
        (None, "user_id is not an integer"),
    ]
    raws = stage.con.execute("select raw_row from staged_rows order by rowid").fetchall()
    assert [raw and json.loads(raw)["user_id"] for (raw,) in raws] == [None, "x", "\\xFF"]


def test_case_and_unicode_forms_are_kept(stage: Staging, tmp_path: Path) -> None:
    users = ["Ann", "ann", *(unicodedata.normalize(form, "é") for form in ("NFC", "NFD")), "true"]
    assert [row[0] for row in stage(csv(tmp_path / "a.csv", users))] == users


def test_integers_and_floats_of_one_column_are_one_user(stage: Staging, tmp_path: Path) -> None:
    """pandas turns integers into floats in the file of a day that has a null."""
    typed(tmp_path / "a.parquet", pa.array([13, 2**53 + 1]))
    typed(tmp_path / "b.parquet", pa.array([13.0, None]))
    rows = stage(tmp_path / "*.parquet")
    assert [row[0] for row in rows] == [13, None, 13, None]
    assert rows[1][4] == "user_id is not an integer", "as floats the large one is not exact"


# --- what says nothing


@pytest.mark.slow
def test_files_without_rows_block_nothing(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    parquet, texts, lines = (tmp_path / kind for kind in ("parquet", "csv", "jsonl"))
    for folder in (parquet, texts, lines):
        folder.mkdir()
    pq.write_table(pa.table({"user_id": pa.nulls(0), "other": pa.nulls(0)}), parquet / "0.parquet")
    typed(parquet / "1.parquet", pa.array([], pa.string()))
    typed(parquet / "2.parquet", pa.array([1, 2]))
    text(texts / "0.csv", "")
    text(texts / "1.csv", "something,else\n")
    csv(texts / "2.csv", [3, 4])
    text(lines / "0.jsonl", "\n\n")
    text(lines / "1.jsonl", json.dumps({"user_id": 5, "item_id": 1, "timestamp": DAY}))
    for folder in (parquet, texts, lines):
        result = ingest(lake, settings, Source(uri=f"{folder}/*.{folder.name}"))
        assert (result.status, result.objects) == ("accepted", len(list(folder.iterdir())))
    assert sorted(lake.rows(columns.INTERACTIONS)["user_id"].to_pylist()) == [1, 2, 3, 4, 5]
    text(texts / "3.csv", HEADER)
    for _ in range(2):
        assert ingest(lake, settings, Source(uri=f"{texts}/*.csv")).status == "nothing new"
    with pytest.raises(SourceError, match="is empty"):
        ingest(lake, settings, Source(uri=str(text(tmp_path / "4.csv", HEADER))))


# --- decided once, and changeable


@pytest.mark.slow
def test_the_type_is_what_the_setting_says(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    contract = Contract(max_rejected_share=1.0)
    settings = settings.model_copy(update={"contract": contract})
    first = Source(uri=str(csv(tmp_path / "a.csv", [7, 8])), user_id_type="text")
    assert "user_id (text)" in ingest(lake, settings, first).understood
    large = Source(uri=str(typed(tmp_path / "b.parquet", pa.array([2**64 - 1, 9], pa.uint64()))))
    ingest(lake, settings, large)
    real = Source(uri=str(typed(tmp_path / "c.parquet", pa.array([10.0, 10.5]))))
    assert ingest(lake, settings, real).quarantined == 1
    users = lake.rows(columns.INTERACTIONS)["user_id"].to_pylist()
    assert sorted(users) == ["10", str(2**64 - 1), "7", "8", "9"]
    again = Source(uri=str(csv(tmp_path / "d.csv", [7, 8])), user_id_type="integer")
    with pytest.raises(SourceError, match="user_id_type is integer, but the lake holds text"):
        ingest(lake, settings, again)


@pytest.mark.slow
def test_text_ids_of_a_typed_source_can_be_read_as_integers(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    made = (
        "create table t as select i::varchar as user_id, i as item_id, "
        "timestamp '2026-01-01' as timestamp from range(30) r(i); "
        "insert into t values ('x7', 1, timestamp '2026-01-01')"
    )
    file = duck(tmp_path / "s.duckdb", made)
    source = Source(uri=str(file), table="t", user_id_type="integer")
    result = ingest(lake, settings, source)
    assert (result.accepted, result.quarantined) == (30, 1)
    (row,) = lake.rows(columns.QUARANTINE).to_pylist()
    assert (row["reasons"], json.loads(row["row"])["user_id"]) == (
        ["user_id is not an integer"],
        "x7",
    )


# --- items


def test_ids_of_items_are_never_rounded(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    lakes.fill(lake, {1: [100, 101, 103]})
    good = "".join(f"{n}.0,true\n" for n in range(200, 270))
    file = text(
        tmp_path / "items.csv", f"item_id,eligible\n102.6,false\n1e2,false\n00101,false\n{good}"
    )
    result = ingest_items(lake, settings, ItemSource(uri=str(file)))
    assert "3 of 73 ids are not integers, for example '00101': left out" in result.understood
    assert result.rows == 70
    rows = lake.rows(columns.ITEMS).to_pylist()
    assert {row["item_id"] for row in rows} == set(range(200, 270))
    text(file, "item_id,eligible\n102.6,false\n7,true\n")
    with pytest.raises(SourceError, match="1 of 2 ids are not integers"):
        ingest_items(lake, settings, ItemSource(uri=str(file)))


def test_ids_of_items_are_text_as_written_where_the_lake_holds_text(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    lakes.fill(lake, {"u": ["00101", "7"]})
    file = text(tmp_path / "items.csv", "item_id\n00101\n102.6\n")
    ingest_items(lake, settings, ItemSource(uri=str(file)))
    assert set(lake.rows(columns.ITEMS)["item_id"].to_pylist()) == {"00101", "102.6"}
    pq.write_table(pa.table({"item_id": [7.0, 8.0]}), tmp_path / "items.parquet")
    ingest_items(lake, settings, ItemSource(uri=str(tmp_path / "items.parquet")))
    assert set(lake.rows(columns.ITEMS)["item_id"].to_pylist()) == {"7", "8"}
