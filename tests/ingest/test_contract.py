from __future__ import annotations

import logging
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import columns
from recsys.errors import BrokenCheckError, ContractError
from recsys.ingest.batch import ingest
from recsys.ingest.contract import PROFILE, ROWS, Rule, contract_rules, evaluate_contract
from recsys.settings import Contract, Source
from tests.browser import CHROMIUM, chromium

if TYPE_CHECKING:
    from recsys.lake.tables import Lake
    from recsys.settings import Settings

NOW = datetime(2026, 3, 1, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)


def write(path: Path, users: list[Any], first: int = 0) -> Path:
    when = [START + timedelta(minutes=first + n) for n in range(len(users))]
    table = {"user_id": users, "item_id": list(range(len(users))), "timestamp": when}
    pq.write_table(pa.table(table), path)
    return path


def under(settings: Settings, **limits: Any) -> Settings:
    return settings.model_copy(update={"contract": Contract(**limits)})


def table(lake: Lake, name: str) -> list[dict[str, Any]]:
    return lake.open(name).to_pyarrow_table().to_pylist()


def test_every_expectation_leaves_a_result(lake: Lake, settings: Settings, tmp_path: Path) -> None:
    result = ingest(lake, settings, Source(uri=str(write(tmp_path / "a.parquet", [1, 2]))), now=NOW)
    results = {
        (row["suite"], row["rule"], row["column"]): (
            row["status"],
            row["observed"],
            row["threshold"],
        )
        for row in table(lake, columns.QUALITY_RESULTS)
        if row["subject"] == result.batch_id
    }
    assert results == {
        (PROFILE, "batch is not empty", "row_count"): ("passed", "2", "at least 1"),
        (PROFILE, "rejected share", "rejected_share"): ("passed", "0", "at most 0.05"),
        (PROFILE, "timestamp span", "span_days"): (
            "passed",
            "0.000694444",
            "at most 18250 days",
        ),
        (PROFILE, "type of ids", "user_id_type"): ("passed", "integer", "integer or text"),
        (PROFILE, "type of ids", "item_id_type"): ("passed", "integer", "integer or text"),
        (ROWS, "no null", "user_id"): ("passed", "0 of 2 rows", "none"),
        (ROWS, "no null", "item_id"): ("passed", "0 of 2 rows", "none"),
        (ROWS, "no null", "timestamp"): ("passed", "0 of 2 rows", "none"),
        (ROWS, "not in the future", "timestamp"): (
            "passed",
            "0 of 2 rows",
            "at most 2026-03-02 00:00:00 UTC",
        ),
    }


def test_too_many_rejected_rows_refuse_the_batch_with_a_report(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.parquet", [None] * 6 + [1] * 14)
    with pytest.raises(ContractError) as refusal:
        ingest(lake, settings, Source(uri=str(file)), now=NOW)
    report = str(refusal.value)
    assert "rejected share (rejected_share): 0.3; the limit is at most 0.05" in report
    assert "user_id is null: 6" in report
    sample = f'object {file}, source_row 1, reasons user_id is null, row {{"user_id":null,'
    assert sample in report
    assert report.count("source_row") == 5
    assert table(lake, columns.INTERACTIONS) == []
    assert table(lake, columns.QUARANTINE) == []
    (batch,) = table(lake, columns.BATCHES)
    assert (batch["status"], batch["rows_in"], batch["accepted"]) == ("refused", 20, 0)
    failed = [row for row in table(lake, columns.QUALITY_RESULTS) if row["status"] == "failed"]
    assert [(row["rule"], row["observed"]) for row in failed] == [("rejected share", "0.3")]


@pytest.mark.slow
def test_a_refusal_is_recorded_once_and_replaced_when_the_batch_is_accepted(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    source = Source(uri=str(write(tmp_path / "a.parquet", [None, 1])))
    for _ in range(2):
        with pytest.raises(ContractError):
            ingest(lake, settings, source, now=NOW)
    assert [row["status"] for row in table(lake, columns.BATCHES)] == ["refused"]
    results = len(table(lake, columns.QUALITY_RESULTS))
    assert ingest(lake, under(settings, max_rejected_share=1), source, now=NOW).accepted == 1
    assert [row["status"] for row in table(lake, columns.BATCHES)] == ["accepted"]
    assert len(table(lake, columns.QUALITY_RESULTS)) == results


def test_a_span_beyond_the_limit_shows_the_oldest_and_newest_rows(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user_id,item_id,timestamp\n1,1,1970-01-02\n2,2,2026-01-01\n3,3,2026-01-03\n")
    with pytest.raises(ContractError) as refusal:
        ingest(lake, under(settings, max_span=timedelta(days=30)), Source(uri=str(path)), now=NOW)
    report = str(refusal.value)
    assert "timestamp span (span_days): 20455; the limit is at most 30 days" in report
    assert "timestamp 1970-01-02" in report
    assert "timestamp 2026-01-03" in report


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "observed"), [(61, "6.1"), (1, "10")])
def test_a_sudden_change_of_row_count_is_refused_after_three_batches(
    lake: Lake, settings: Settings, tmp_path: Path, rows: int, observed: str
) -> None:
    strict = under(settings, max_row_count_change=6)
    source = Source(uri=str(tmp_path / "*.parquet"))
    for night in range(3):
        # The first two differ by a factor of ten, which too few batches can't tell is unusual.
        count = [100, 10, 10][night]
        write(tmp_path / f"{night}.parquet", list(range(count)), first=1000 * night)
        ingest(lake, strict, source, now=NOW)
    write(tmp_path / "9.parquet", list(range(rows)), first=9000)
    with pytest.raises(ContractError, match="change of row count") as refusal:
        ingest(lake, strict, source, now=NOW)
    assert f"{observed}; the limit is at most 6 times more or fewer" in str(refusal.value)
    assert len(table(lake, columns.INTERACTIONS)) == 120
    write(tmp_path / "9.parquet", list(range(50)), first=9000)
    assert ingest(lake, strict, source, now=NOW).accepted == 50


@pytest.mark.slow
def test_batches_that_held_nothing_new_do_not_count_as_usual(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    source = Source(uri=str(tmp_path / "*.parquet"))
    write(tmp_path / "0.parquet", list(range(100)))
    ingest(lake, settings, source, now=NOW)
    for night in (1, 2):
        write(tmp_path / f"{night}.parquet", [0])
        assert ingest(lake, settings, source, now=NOW).status == "nothing new"
    assert len(table(lake, columns.BATCHES)) == 3
    write(tmp_path / "3.parquet", list(range(100)), first=1000)
    assert ingest(lake, under(settings, max_row_count_change=2), source, now=NOW).accepted == 100


@pytest.mark.slow
def test_a_check_that_breaks_is_not_called_bad_data(
    lake: Lake, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = contract_rules

    def with_a_broken_rule(*arguments: Any) -> list[Rule]:
        broken = Rule(ROWS, "broken", "no_such_column", "ExpectColumnValuesToNotBeNull", "none", {})
        return [*rules(*arguments), broken]

    monkeypatch.setattr("recsys.ingest.contract.contract_rules", with_a_broken_rule)
    source = Source(uri=str(write(tmp_path / "a.parquet", [1, 2])))
    with pytest.raises(BrokenCheckError, match=r"rows: broken \(no_such_column\)") as refusal:
        ingest(lake, settings, source, now=NOW)
    assert "not in the data" in str(refusal.value)
    assert table(lake, columns.INTERACTIONS) == []
    statuses = {row["rule"]: row["status"] for row in table(lake, columns.QUALITY_RESULTS)}
    assert statuses["broken"] == "broken"
    assert statuses["rejected share"] == "passed"
    assert "failed" not in statuses.values()
    monkeypatch.setattr("recsys.ingest.contract.contract_rules", rules)
    assert ingest(lake, settings, source, now=NOW).accepted == 2
    assert {row["status"] for row in table(lake, columns.QUALITY_RESULTS)} == {"passed"}


def test_an_evaluation_tells_passed_failed_and_broken_apart() -> None:
    between = "ExpectColumnValuesToBeBetween"
    rules = [
        Rule(ROWS, "within", "n", between, "at most 5", {"max_value": 5}),
        Rule(ROWS, "beyond", "n", between, "at most 2", {"max_value": 2}),
        Rule(ROWS, "absurd", "text", between, "at most 2", {"max_value": 2}),
    ]
    frame = pd.DataFrame({"n": [1, 2, 3], "text": ["a", "b", "c"]})
    results = evaluate_contract(rules, {ROWS: frame}, "a run")
    assert [(result.status, result.observed) for result in results] == [
        ("passed", "0 of 3 rows"),
        ("failed", "1 of 3 rows"),
        ("broken", ""),
    ]
    assert results[2].detail


def test_an_evaluation_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rule = Rule(ROWS, "no null", "n", "ExpectColumnValuesToNotBeNull", "none", {})
    evaluate_contract([rule], {ROWS: pd.DataFrame({"n": [1]})}, "a run")
    assert [record.getMessage() for record in caplog.records] == []


def test_a_batch_has_a_page_of_its_checks_made_without_a_network(
    lake: Lake, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: called.append(address))
    result = ingest(lake, settings, Source(uri=str(write(tmp_path / "a.parquet", [1]))), now=NOW)
    assert called == []
    page = (tmp_path / "lake" / "checks" / f"{result.batch_id}.html").read_text()
    assert "<h1>Accepted</h1>" in page
    assert "1 rows read: 1 new, 0 known, 0 rejected." in page
    rules = [row["rule"] for row in table(lake, columns.QUALITY_RESULTS)]
    assert rules
    assert all(f'<th scope="row">{rule}</th>' in page for rule in rules)
    assert not re.findall(r"https?:|<script|<img|<link|url\(", page)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_refused_batch_names_its_page_which_shows_no_row_and_takes_no_name_for_html(
    lake: Lake, settings: Settings, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    source = tmp_path / "<img src=x onerror=alert(1)>.csv"
    lines = ["user_id,item_id,timestamp", *["4711,1,2026-01-01"] * 3, *["4711,,"] * 2]
    source.write_text("\n".join(lines) + "\n")
    with pytest.raises(ContractError) as refused:
        ingest(lake, settings, Source(uri=str(source)), now=NOW)
    address = str(refused.value).rpartition("All checks: ")[2]
    with chromium(tmp_path) as page:
        page.use_width(390)
        page.open(Path(address).as_uri())
        text = page.until_text("Rejected rows")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert page.evaluate("document.images.length") == 0
        assert not page.errors
        asked = [url for url in page.requests if not url.startswith("file:")]
    assert text.startswith("Refused\n")
    assert "None of them was ingested." in text
    assert "rejected share" in text
    assert "4711" not in text
    assert (wide, asked) == (390, [])
    record_property("counted hostile inputs", "text in HTML")


@pytest.mark.slow
def test_beyond_the_limit_a_seeded_sample_is_checked(
    lake: Lake, settings: Settings, tmp_path: Path
) -> None:
    source = Source(uri=str(write(tmp_path / "a.parquet", list(range(20_000)))))
    ingest(lake, under(settings, sample_rows=1000), source, now=NOW)
    (sample_rows,) = {
        int(row["observed"].split()[2])
        for row in table(lake, columns.QUALITY_RESULTS)
        if row["suite"] == ROWS
    }
    assert 800 < sample_rows <= 1000
    assert len(table(lake, columns.INTERACTIONS)) == 20_000


def test_the_sample_is_the_same_each_time() -> None:
    from sql import load

    samples = []
    for threads in (1, 4):
        with duckdb.connect(config={"threads": threads}) as con:
            con.execute(
                "create view accepted_rows as select i as user_id, i as item_id, "
                "now() as timestamp, i as source_row from range(300000) t(i)"
            )
            parameters = {"most": 5000, "accepted": 300_000, "seed": 0}
            samples.append(con.execute(load("ingest/row_sample"), parameters).fetchall())
    assert [row[0] for row in samples[0]] == [row[0] for row in samples[1]]
    assert 4000 < len(samples[0]) <= 5000
