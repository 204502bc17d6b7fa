"""The frame of a run: its row from the start to whatever end, and who may write beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recsys import columns
from recsys.errors import TimeLimitError
from recsys.lake.bound import Bound
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.operations import runs
from recsys.operations.runs import record_run
from recsys.process import has_ended, this_process
from recsys.registry.models import find_champion, model_rows
from recsys.registry.promote import promote
from recsys.registry.retrain import train
from recsys.settings import Recommending, Settings, Training
from recsys.signals import exit_on_signals
from tests import lakes
from tests.flows.nights import CROSS_JOIN
from tests.registry.test_retrain import SMALL, known_world

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = date(2026, 1, 2)


def rows(lake: Lake) -> dict[str, dict[str, Any]]:
    """run_id -> its row."""
    found = lake.rows(columns.RUNS).to_pylist()
    assert len({row["run_id"] for row in found}) == len(found)
    return {row["run_id"]: row for row in found}


@pytest.fixture
def _own_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_a_run_has_its_row_from_the_start_and_living_ones_are_left_alone(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {1: [1, 2]})
    with record_run("train", "long", settings, {"seed": 1}) as run:
        (row,) = rows(lake).values()
        assert (row["status"], row["flow"], row["finished"]) == ("running", "train", None)
        assert has_ended(row["process"]) is False
        with run.lake.unlocked(), record_run("nightly", "short", settings, {}):
            pass
        found = rows(lake)
        assert (found["long"]["status"], found["short"]["status"]) == ("running", "completed")
    last = rows(lake)["long"]
    assert (last["status"], last["started"]) == ("completed", row["started"])
    assert last["seconds"] > 0


@pytest.mark.slow
def test_a_first_run_has_its_row_once_there_are_tables(lake: Lake, settings: Settings) -> None:
    with record_run("nightly", "first", settings, {}) as run:
        lakes.fill(run.lake, {1: [1, 2]})
        run.record("ingest", replace(lakes.model_row("any")))
        assert rows(lake)["first"]["status"] == "running"


KILLED = """
import os, signal
from recsys.operations.runs import record_run
from recsys.settings import Settings
with record_run("nightly", "killed", Settings(), {}):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_next_run_finds_one_that_was_killed(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakes.fill(lake, {1: [1, 2]})
    env = {**os.environ, "RECSYS_LAKE": settings.lake}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert rows(lake)["killed"]["status"] == "running"
    monkeypatch.setattr("socket.gethostname", lambda: "another machine")
    with record_run("ingest", "elsewhere", settings, {}):
        pass
    assert rows(lake)["killed"]["status"] == "running", "nobody there can know"
    monkeypatch.undo()
    with record_run("ingest", "next", settings, {}):
        row = rows(lake)["killed"]
        assert (row["status"], row["finished"]) == ("crashed", None)
        assert "ended without a word" in row["error"]
    assert {row["status"] for row in rows(lake).values()} == {"crashed", "completed"}


@pytest.mark.slow
def test_a_run_of_another_machine_is_given_up_when_its_time_is_over(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {1: [1, 2]})
    now, limit = datetime.now(UTC), settings.time_limit
    process = this_process().replace(os.uname().nodename, "another")
    running = {"flow": "nightly", "status": "running", "process": process}
    old, new = now - limit - timedelta(hours=2), now - limit
    lakes.write(
        lake,
        columns.RUNS,
        [
            {**running, "run_id": "old", "started": old},
            {**running, "run_id": "new", "started": new},
        ],
    )
    with record_run("ingest", "next", settings, {}):
        pass
    statuses = {run_id: row["status"] for run_id, row in rows(lake).items()}
    assert statuses == {"old": "crashed", "new": "running", "next": "completed"}


def test_a_process_that_was_given_the_number_of_a_dead_one_is_not_it() -> None:
    host, boot, pid, start = this_process().split()
    assert has_ended(f"{host} {boot} {pid} {start}") is False
    assert has_ended(f"{host} {boot} {pid} 1") is True
    assert has_ended(f"{host} of-before {pid} {start}") is True
    assert has_ended("nobody knows") is None


@pytest.mark.slow
@pytest.mark.usefixtures("_own_sigterm")
def test_a_query_that_heeds_no_signal_is_interrupted_and_the_run_cancelled(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {1: [1, 2]})
    started = time.monotonic()
    stop = [sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({os.getpid()}, 15)"]
    with (
        pytest.raises(SystemExit) as ended,
        subprocess.Popen(stop),
        exit_on_signals(),
        record_run("nightly", "stopped", settings, {}),
        open_duckdb(settings) as con,
    ):
        con.execute(f"select count(*) from ({CROSS_JOIN})")
    assert ended.value.code == 128 + signal.SIGTERM
    assert time.monotonic() - started < 20
    row = rows(lake)["stopped"]
    assert (row["status"], row["error"]) == ("cancelled", "stopped by SIGTERM")


@pytest.mark.slow
@pytest.mark.usefixtures("_own_sigterm")
def test_a_run_that_hangs_is_stopped_when_its_time_is_over(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [1, 2]})
    hasty = settings.model_copy(update={"time_limit": timedelta(seconds=1)})
    with (
        pytest.raises(TimeLimitError, match=r"time_limit = 0:00:01; find out"),
        exit_on_signals(),
        record_run("nightly", "slow", hasty, {}),
        open_duckdb(settings) as con,
    ):
        con.execute(f"select count(*) from ({CROSS_JOIN})")
    row = rows(lake)["slow"]
    assert row["status"] == "failed"
    assert "took longer than time_limit" in row["error"]


@pytest.mark.slow
def test_a_night_and_a_promotion_go_by_while_a_model_trains(lake: Lake, settings: Settings) -> None:
    """The night serves the earlier champion; the training is judged by the later one."""
    known_world(lake)
    recipe = Training(epochs=1, overrides=SMALL, tolerance=1)
    first, second = (train(lake, settings, recipe.changed({"seed": seed})) for seed in (1, 2))
    champion = find_champion(lake)
    assert champion
    other = next(row.model_id for row in model_rows(lake) if row.model_id != champion.model_id)
    assert {first.model_id, second.model_id} == {champion.model_id, other}
    nights = []

    def night(stage: str, *_: object) -> None:
        if stage != "training" or nights:
            return
        nights.append(stage)
        with record_run("nightly", "night", settings, {}) as run:
            bound = Bound.of(settings, DAY, "now")
            lists = recommend(
                run.lake, settings, Recommending(k=3), run_date=DAY, run_id="night", bound=bound
            )
            assert lists.model_id == champion.model_id
            promote(run.lake, other, why="a test", run_id="night")

    with record_run("train", "training", settings, {}) as run:
        result = train(run.lake, settings, recipe, run_id="training", progress=night)
    assert nights
    assert f"champion {other}: " in result.why
    assert {run_id: row["status"] for run_id, row in rows(lake).items()} == {
        "night": "completed",
        "training": "completed",
    }


def test_rows_of_two_runs_that_end_together_are_both_written(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on S3, where no lock keeps a training and a night apart."""
    lakes.fill(lake, {1: [1, 2]})
    real, refused = Lake.replace, []

    def conflict(self: Lake, table: str, *given: Any, **named: Any) -> int:
        if table == columns.RUNS and not refused:
            refused.append(table)
            raise runs.LakeError("another run has written at the same time", transient=True)
        return real(self, table, *given, **named)

    monkeypatch.setattr(Lake, "replace", conflict)
    with record_run("ingest", "one", settings, {}):
        pass
    assert refused
    assert rows(lake)["one"]["status"] == "completed"
    assert Path(lake.uri("catalog.duckdb")).exists()
