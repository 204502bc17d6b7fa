from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pydantic import ValidationError

from recsys import columns
from recsys.errors import SourceError
from recsys.ingest.batch import ingest
from recsys.ingest.check_source import check_source
from recsys.ingest.column_map import resolve
from recsys.ingest.items import ingest_items
from recsys.lake.tables import Lake
from recsys.settings import Contract, ItemSource, Settings, Source
from tests import lakes
from tests.test_cli import recsys

HEADER = "User_ID,sku,Timestamp,Event,Value,price,launched\n"


def duck(path: Path, statement: str) -> Path:
    with duckdb.connect(str(path)) as con:
        con.execute(statement)
    return path


# --- names


def test_a_name_in_the_sources_own_spelling_comes_before_one_in_another_case() -> None:
    found = resolve({"event": "Kind"}, ["USER_ID", "user_id", "Item_Id", "TIMESTAMP", "kind"], "a")
    assert found.names == {
        "user_id": "user_id",
        "item_id": "Item_Id",
        "timestamp": "TIMESTAMP",
        "event": "kind",
    }
    assert list(found.unused) == ["USER_ID"]


def test_two_columns_that_differ_in_case_alone_are_not_guessed() -> None:
    required = ["item_id", "timestamp"]
    with pytest.raises(SourceError, match="'User_Id', 'USER_ID', which differ in case alone"):
        resolve({}, [*required, "User_Id", "USER_ID"], "a.csv")
    found = resolve({}, [*required, "user_id", "Event", "EVENT"], "a.csv")
    assert "event" not in found.names
    assert list(found.unused) == ["Event", "EVENT"]


def test_a_column_that_the_mapping_takes_is_taken_once() -> None:
    found = resolve({"user_id": "Event"}, ["event", "item_id", "timestamp"], "a.csv")
    assert found.names == {"user_id": "event", "item_id": "item_id", "timestamp": "timestamp"}


def test_an_optional_column_can_be_switched_off_and_a_required_one_can_not() -> None:
    found = resolve({"value": ""}, ["user_id", "item_id", "timestamp", "value"], "a.csv")
    assert "value" not in found.names
    assert list(found.unused) == ["value"]
    Source(uri="a.csv", columns={"value": "", "event": ""})
    with pytest.raises(ValidationError, match="gives user_id no column"):
        Source(uri="a.csv", columns={"user_id": ""})
    with pytest.raises(ValidationError, match="gives item_id no column"):
        ItemSource(uri="a.csv", columns={"item_id": ""})


# --- what an ingest says


@pytest.mark.slow
def test_an_ingest_says_what_it_understood_and_what_it_left_over(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_text(HEADER + "1,x,2026-01-02,view,4.5,9.99,2020\n2,y,2026-01-02,buy,,1.99,2021\n")
    result = ingest(lake, settings, Source(uri=str(file), columns={"item_id": "SKU"}))
    assert result.understood == (
        "interactions: 2 rows; user_id <- User_ID (integers), item_id <- sku (text), "
        "timestamp <- Timestamp, event <- Event, value <- Value; not used: price, launched"
    )
    rows = lake.rows(columns.INTERACTIONS).to_pylist()
    assert [(row["event"], row["value"]) for row in rows] == [("view", 4.5), ("buy", None)]
    assert ingest(lake, settings, Source(uri=str(file))).understood == "", "nothing was read"


def test_json_keys_in_capitals_are_read(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"User_Id": 1, "ITEM_ID": 2, "timestamp": "2026-01-02", "Value": 3}\n')
    ingest(lake, settings, Source(uri=str(file)))
    (row,) = lake.rows(columns.INTERACTIONS).to_pylist()
    assert (row["user_id"], row["item_id"], row["value"]) == (1, 2, 3.0)


def test_a_json_key_that_is_switched_off_is_not_read(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"user_id": 1, "item_id": 2, "timestamp": "2026-01-02", "value": "good"}\n')
    result = ingest(lake, settings, Source(uri=str(file), columns={"value": ""}))
    assert (result.accepted, result.quarantined) == (1, 0)
    assert result.understood.endswith("no event, value; not used: value")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("DATE", "date '2026-01-01'"),
        ("STRUCT(a INTEGER)", "{'a': 1}"),
        ("INTEGER[]", "[1, 2]"),
        ("INTERVAL", "interval 1 day"),
        ("BLOB", "'x'::blob"),
        ("TIME", "time '10:00'"),
    ],
)
def test_values_of_another_type_are_told_with_their_count(
    lake: Lake, settings: Settings, tmp_path: Path, kind: str, made: str
) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create table t as select i as user_id, 2 as item_id, timestamp '2026-01-01' as timestamp, "
        f"case when i > 0 then {made} end as value from range(3) t(i)",
    )
    result = ingest(lake, settings, Source(uri=str(file), table="t"))
    assert result.understood.endswith(
        f"no event, value; not used: value (2 values of {kind} are not numbers)"
    )
    assert set(lake.rows(columns.INTERACTIONS)["value"].to_pylist()) == {None}


@pytest.mark.slow
def test_events_that_are_not_text_are_told_or_quarantined(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = duck(
        tmp_path / "s.duckdb",
        "create table t as select i as user_id, 2 as item_id, timestamp '2026-01-01' as timestamp, "
        "case when i > 0 then ['view'] end as event from range(3) t(i)",
    )
    result = ingest(lake, settings, Source(uri=str(file), table="t"))
    assert result.understood.endswith(
        "no event, value; not used: event (2 values of VARCHAR[] are not text)"
    )
    assert set(lake.rows(columns.INTERACTIONS)["event"].to_pylist()) == {None}
    line = '{{"user_id": {}, "item_id": 3, "timestamp": "2026-01-02", "event": {}}}\n'
    events = ['"view"', "7", "null", '["view"]', '{"name": "view"}']
    (tmp_path / "a.jsonl").write_text("".join(map(line.format, range(5), events)))
    lenient = settings.model_copy(update={"contract": Contract(max_rejected_share=1.0)})
    ingest(lake, lenient, Source(uri=str(tmp_path / "a.jsonl")))
    assert lake.rows(columns.QUARANTINE)["reasons"].to_pylist() == [["event is not text"]] * 2
    rows = lake.rows(columns.INTERACTIONS).to_pylist()
    assert [row["event"] for row in rows if row["item_id"] == 3] == ["view", "7", None]


@pytest.mark.slow
def test_an_enum_of_words_is_not_a_value(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    made = (
        "create type stars as enum ('4', 'good'); create table t as select 1 as user_id, "
        "i as item_id, timestamp '2026-01-01' as timestamp, "
        "(case when i = 0 then 'good' else '4' end)::stars as value from range(30) t(i)"
    )
    source = Source(uri=str(duck(tmp_path / "s.duckdb", made)), table="t")
    result = ingest(lake, settings, source)
    assert (result.accepted, result.quarantined) == (29, 1)
    (row,) = lake.rows(columns.QUARANTINE).to_pylist()
    assert row["reasons"] == ["value is unparsable"]


@pytest.mark.parametrize(
    ("mapping", "understood"),
    [
        (
            {"item_id": "sku"},
            "items: 2 rows; item_id <- sku (integers), eligible <- Eligible; no title, category; "
            "not used: name, price, launched",
        ),
        (
            {"item_id": "sku", "title": "name"},
            "items: 2 rows; item_id <- sku (integers), title <- name, eligible <- Eligible; "
            "no category; not used: price, launched",
        ),
    ],
)
def test_items_say_what_was_understood_and_are_eligible_in_any_case(
    lake: Lake, settings: Settings, tmp_path: Path, mapping: dict[str, str], understood: str
) -> None:
    lakes.fill(lake, {1: [7, 8]})
    made = (
        "create table products as from (values (7, 'A', true, 9.9, 2020), (8, 'B', false, 1.9, 21))"
        ' t(sku, name, "Eligible", price, launched)'
    )
    source = ItemSource(
        uri=str(duck(tmp_path / "s.duckdb", made)), table="products", columns=mapping
    )
    assert ingest_items(lake, settings, source).understood == understood
    rows = lake.rows(columns.ITEMS).to_pylist()
    assert {row["item_id"]: row["eligible"] for row in rows} == {7: True, 8: False}


# --- check-source


def test_check_source_says_what_would_be_refused_and_writes_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = tmp_path / "a.csv"
    good = "".join(f"{n},{n % 5},2026-01-02,{n},0,0,0\n" for n in range(38))
    file.write_text(HEADER + good + ",2,2026-01-02,,,,\n7,2,soon,,,,\n")
    call = ("check-source", str(file), "--column", "item_id=sku", "--column", "event=")
    code, out, err = recsys(monkeypatch, capsys, "--lake", settings.lake, *call)
    assert code == 0
    assert "user_id <- User_ID (integers), item_id <- sku (integers)" in err
    assert "not used: Event, price, launched" in err
    assert "38 of 40 rows would be accepted, 2 rejected (5.0%)" in err
    assert "timestamp is unparsable: 1 user_id is null: 1" in err
    assert "Nothing was written." in err
    assert "2026-01-02" in out
    assert not Path(settings.lake).exists()


def test_check_source_exits_with_1_where_the_batch_would_be_refused(
    lake: Lake, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    lakes.fill(lake, {1: [7, 8]})
    before = {name: lake.version(name) for name in (columns.INTERACTIONS, columns.QUALITY_RESULTS)}
    file = tmp_path / "a.csv"
    file.write_text("user_id,item_id,timestamp\n1,7,2026-01-01T00:00:00Z\n,2,2026-01-02\n")
    call = ("--lake", settings.lake, "check-source", str(file))
    code, _, err = recsys(monkeypatch, capsys, *call)
    assert code == 1
    assert "0 of 2 rows would be accepted, 1 rejected (50.0%); 1 are in the lake already" in err
    assert "would be refused whole: rejected share (rejected_share): 0.5; the limit is" in err
    assert before == {name: Lake.from_settings(settings).version(name) for name in before}


def test_check_source_names_what_is_missing(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("u,i\n1,2\n")
    with pytest.raises(SourceError, match="has no column 'user_id'; it has u, i"):
        check_source(lake, settings, Source(uri=str(tmp_path / "a.csv")))
    (tmp_path / "b.csv").write_text("user_id,item_id,timestamp\n")
    with pytest.raises(SourceError, match="is empty"):
        check_source(lake, settings, Source(uri=str(tmp_path / "b.csv")))
    assert not lake.exists(columns.INTERACTIONS)


@pytest.mark.slow
def test_check_source_reads_what_an_ingest_has_taken_too(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,2,2026-01-02\n")
    source = Source(uri=str(tmp_path / "a.csv"))
    ingest(lake, settings, source)
    result = check_source(lake, settings, source)
    assert (result.profile.accepted, result.profile.duplicates, result.objects) == (0, 1, 1)
    assert result.first_rows.to_pylist()[0]["user_id"] == 1
    assert isinstance(result.first_rows, pa.Table)
    assert result.first_rows["timestamp"][0].as_py().date() == date(2026, 1, 2)


def test_settings_of_a_source_can_be_given_on_the_command_line(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("user_id,item_id,timestamp\n1,7,20000\n,8,20001\n")
    changes = ("--set", "timestamp_unit=days", "--set", "drop_null_users=true")
    call = (
        "--lake",
        settings.lake,
        "check-source",
        str(file),
        *changes,
        "--set",
        "item_id_type=text",
    )
    code, out, err = recsys(monkeypatch, capsys, *call)
    assert code == 0
    assert "item_id (text), timestamp (days since 1970, as set)" in err
    assert "1 have no user" in err
    assert "2024-10-04" in out
    code, _, err = recsys(monkeypatch, capsys, *call[:4], "--set", "timestamp_unit=weeks")
    assert code == 2
    assert "timestamp_unit" in err
