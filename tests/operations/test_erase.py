"""An erased user is nowhere in the lake any more, and no source brings them back."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import columns
from recsys.catalog.publish import CATALOG_FILE
from recsys.errors import ConfigurationError
from recsys.ingest.batch import ingest
from recsys.lake.bound import Bound
from recsys.lake.row_counts import check_row_counts
from recsys.lake.schemas import TABLES
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.operations.erase import EraseResult, erase
from recsys.operations.maintain import maintain
from recsys.settings import Settings, Source
from tests.operations.nights import NIGHTS, NOW, USERS, settings_of
from tests.sampling import sample
from tests.test_cli import recsys

USER = "zoë-4711"
DAY = date(2026, 1, 2)
LINES = [
    "user_id,item_id,timestamp",
    *(
        f"{user},item {number},2026-01-02T0{number}:00"
        for user, items in ((USER, 3), ("b", 4), ("c", 2))
        for number in range(items)
    ),
    f"{USER},item 1,no time",
    f"b,{USER},no time either",
    f"{USER};with the wrong separator",
    "b,item 9,never",
]


def settings_for(folder: Path) -> Settings:
    return settings_of(folder).model_copy(
        update={"source": Source(uri=str(folder / "events" / "*.csv"))}
    )


def put_lines(folder: Path, name: str = "1.csv", lines: list[str] = LINES) -> None:
    (folder / "events").mkdir(parents=True, exist_ok=True)
    (folder / "events" / name).write_text("\n".join(lines) + "\n")


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Lake, Settings, Path]:
    """A lake of text ids, with bad rows, and lists."""
    put_lines(tmp_path)
    settings = settings_for(tmp_path)
    lake = Lake.from_settings(settings)
    with lake.write_lock():
        ingest(lake, settings)
        bound = Bound.of(settings, DAY, "now")
        recommend(lake, settings, run_date=DAY, run_id="run", bound=bound)
    return lake, settings, tmp_path


def erased(lake: Lake, user: str = USER, why: str = "asked on 3 January") -> EraseResult:
    with lake.write_lock():
        return erase(lake, user, why)


def holders(folder: Path, user: str) -> set[str]:
    """Files of a lake that hold the id: in the rows of Parquet, and in the bytes of the others."""
    found = set()
    for path in folder.rglob("*"):
        if path.suffix == ".parquet" and "_delta_log" not in path.parts:
            text = repr(pq.ParquetFile(path).read().to_pylist())
        elif path.is_file():
            text = path.read_bytes().decode(errors="replace")
        else:
            continue
        if user in text or json.dumps(user)[1:-1] in text:
            found.add(path.relative_to(folder).as_posix())
    return found


def test_a_user_is_gone_from_every_row_and_from_the_files_after_the_next_maintenance(
    shop: tuple[Lake, Settings, Path],
) -> None:
    lake, settings, folder = shop
    assert len(holders(folder / "lake", USER)) > 4
    result = erased(lake)
    assert (result.interactions, result.recommendations, result.quarantined) == (3, 1, 3)
    for name in TABLES:
        assert USER not in repr(lake.rows(name).to_pylist()), name
    assert {row["user_id"] for row in lake.rows(columns.INTERACTIONS).to_pylist()} == {"b", "c"}
    settings = settings.model_copy(
        update={"maintenance": settings.maintenance.changed({"retention": timedelta(0)})}
    )
    with lake.write_lock():
        day = DAY + timedelta(days=1)
        bound = Bound.of(settings, day, "now")
        recommend(lake, settings, run_date=day, run_id="next", bound=bound)
        maintain(lake, settings, now=NOW)
        maintain(lake, settings, now=NOW)
    assert holders(folder / "lake", USER) == set()


@pytest.mark.slow
def test_counts_agree_and_the_rest_of_the_quarantine_stays(
    shop: tuple[Lake, Settings, Path],
) -> None:
    lake, _, _ = shop
    before = lake.rows(columns.QUARANTINE).num_rows
    erased(lake)
    check_row_counts(lake)
    rows = lake.rows(columns.QUARANTINE).to_pylist()
    (batch,) = lake.rows(columns.BATCHES).to_pylist()
    assert len(rows) == before == batch["quarantined"] == 4
    assert sorted(row["row"] for row in rows)[:3] == ['{"erased": true}'] * 3
    assert all(row["reasons"] for row in rows)


@pytest.mark.slow
def test_an_old_source_read_again_does_not_bring_the_user_back(
    shop: tuple[Lake, Settings, Path],
) -> None:
    lake, settings, folder = shop
    erased(lake)
    put_lines(folder, "again.csv", [*LINES, "d,item 1,2026-01-03T00:00"])
    with lake.write_lock():
        result = ingest(lake, settings)
    assert result.accepted == 1
    for name in (columns.INTERACTIONS, columns.QUARANTINE):
        assert USER not in repr(lake.rows(name).to_pylist()), name


@pytest.mark.slow
def test_a_hash_a_reason_and_a_date_stay_and_a_second_erasure_keeps_them(
    shop: tuple[Lake, Settings, Path],
) -> None:
    lake, _, _ = shop
    first = erased(lake)
    assert erased(lake, why="again").erased_at == first.erased_at
    erased(lake, "b", "asked, too")
    rows = sorted(lake.rows(columns.ERASURES).to_pylist(), key=lambda row: row["erased_at"])
    assert [row["why"] for row in rows] == ["asked on 3 January", "asked, too"]
    assert len({row["user_hash"] for row in rows}) == 2
    assert len({row["salt"] for row in rows}) == 1
    assert all(row["who"] for row in rows)
    check_row_counts(lake)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "finish"),
    sample(
        [
            ("delete", "maintenance"),
            ("_blank_quarantine", "maintenance"),
            ("_blank_quarantine", "command"),
            ("record_deletions", "command"),
        ],
        *(0, 3),
    ),
)
def test_a_killed_erasure_is_finished_by_the_same_command_or_the_next_maintenance(
    shop: tuple[Lake, Settings, Path], monkeypatch: pytest.MonkeyPatch, step: str, finish: str
) -> None:
    lake, settings, folder = shop

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "delete":
            patch.setattr(Lake, "delete", killed)
        else:
            patch.setattr(f"recsys.operations.erase.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            erased(lake)
    put_lines(folder, "again.csv")
    with lake.write_lock():
        ingest(lake, settings)
        if finish == "maintenance":
            maintain(lake, settings, now=NOW)
    if finish == "command":
        erased(lake)
    check_row_counts(lake)
    for name in TABLES:
        assert USER not in repr(lake.rows(name).to_pylist()), name


@pytest.mark.slow
def test_a_report_with_sample_rows_loses_them(shop: tuple[Lake, Settings, Path]) -> None:
    lake, _, _ = shop
    report = f"refused\n\nsample rows:\n  user_id {USER}, item_id 3\n\nFix the source"
    rows = [
        {"run_id": name, "flow": "nightly", "status": "refused", "error": text}
        for name, text in (("1", report), ("2", report.replace(USER, "someone")), ("3", None))
    ]
    lake.append(columns.RUNS, pa.Table.from_pylist(rows, schema=lake.schema(columns.RUNS)))
    assert erased(lake).reports == 1
    errors = {row["run_id"]: row["error"] for row in lake.rows(columns.RUNS).to_pylist()}
    assert errors["1"] == "refused\n\nsample rows: removed with a user's erasure"
    assert "someone" in errors["2"]


@pytest.mark.slow
def test_integers_are_erased_by_the_command_and_leave_the_catalog(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--lake", str(folder / "lake"), "erase", "--user", "3", "--why", "asked"]
    code, _, said = recsys(monkeypatch, capsys, *words)
    assert code == 0, said
    assert f"erased: {NIGHTS} interactions, {3 * NIGHTS} rows of lists" in said
    with duckdb.connect(folder / "lake" / CATALOG_FILE, read_only=True) as con:
        for table in ("interactions", "recommendations", "latest_recommendations"):
            users = con.execute(f"select distinct user_id from {table}").fetchall()
            assert len(users) == USERS - 1, table
            assert (3,) not in users
        assert "3" not in con.execute("select parameters from runs").fetchall()[-1][0]
    assert not (folder / "lake" / "packed" / "interactions.arrows").exists()
    pages = list((folder / "lake" / "checks").glob("*.html"))
    assert len(pages) == NIGHTS, "they show no row"
    lake = Lake.from_settings(settings_of(folder))
    assert ingest(lake, settings_of(folder)).status == "nothing new"


@pytest.mark.parametrize(
    ("user", "why", "message"),
    [
        ("zoë", "asked", "integer"),
        ("3", " ", "reason"),
        ("3", "user 3 asked", "reason"),
        ("03", "asked", "integer"),
    ],
)
def test_what_can_not_be_meant_is_refused(folder: Path, user: str, why: str, message: str) -> None:
    lake = Lake.from_settings(settings_of(folder))
    with pytest.raises(ConfigurationError, match=message):
        erased(lake, user, why)
    assert lake.rows(columns.ERASURES).num_rows == 0
