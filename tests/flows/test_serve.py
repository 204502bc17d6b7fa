"""The deployments on a real Prefect server, each piece a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from recsys.catalog.query import query_catalog
from recsys.errors import LakeError
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.conftest import free_port
from tests.flows import nights
from tests.flows.processes import (
    ctrl_c,
    hang_up,
    log_of,
    prefect,
    running,
    start_run,
    state_of,
    terminate,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def runs(lake: Path, flow: str) -> list[dict[str, Any]]:
    """Rows of `runs` of one flow that completed."""
    statement = "select * from runs where flow = $flow and status = 'completed' order by started"
    try:
        found = query_catalog(Lake(str(lake), ObjectStorage()), statement, {"flow": flow})
    except LakeError:
        return []
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


@pytest.fixture
def served(tmp_path: Path, prefect_home: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """`recsys serve` with a schedule that is due every few seconds and a server of its own."""
    source, lake, port = tmp_path / "source.duckdb", tmp_path / "lake", free_port()
    nights.make_source(source)
    env = nights.environment(source, lake, f"http://127.0.0.1:{port}/api")
    env |= {"PREFECT_HOME": str(prefect_home), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    env["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    for package in ("flows", "recsys", "sql"):  # of the user's, in the working directory
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    when = ("--cron", "* * * * *", "--timezone", "Europe/Berlin", "--train", "never")
    with running(own, tmp_path, "serve", "--port", str(port), *when):
        yield env, lake


@pytest.mark.timeout(400)
def test_a_served_night_comes_by_schedule_and_a_training_by_hand_in_a_folder_with_other_flows(
    served: tuple[dict[str, str], Path],
) -> None:
    env, lake = served
    until(lambda: "train/on-demand" in log_of(lake.parent).read_text(), 120)

    nightly = until(lambda: runs(lake, "nightly"), 180)[0]
    outcome = json.loads(nightly["outcome"])
    assert outcome["recommend"]["users"] == nights.USERS
    assert "train" not in outcome

    refused = prefect(env, "deployment", "run", "train/on-demand", "-p", "epochs=0")
    assert refused.returncode != 0
    assert "epochs" in refused.stdout + refused.stderr
    unknown = prefect(env, "deployment", "run", "train/on-demand", "-p", "epoch=2")
    assert unknown.returncode != 0

    run = prefect(env, "deployment", "run", "train/on-demand", "-p", "epochs=1", "-p", "seed=5")
    assert run.returncode == 0, run.stdout + run.stderr
    trained = until(lambda: runs(lake, "train"), 120)[0]
    parameters = json.loads(trained["parameters"])
    assert (parameters["epochs"], parameters["seed"]) == (1, 5)
    model = json.loads(trained["outcome"])["train"]
    assert (model["epochs"], model["status"]) == (1, "champion") or model["status"] == "rejected"


def test_a_night_cancelled_within_a_query_is_cancelled_and_recorded(
    tmp_path: Path, prefect_home: Path
) -> None:
    source, lake, port = tmp_path / "source.duckdb", tmp_path / "lake", free_port()
    nights.make_source(source)
    env = nights.environment(
        source, lake, f"http://127.0.0.1:{port}/api", PREFECT_HOME=str(prefect_home)
    )
    with running(env, tmp_path, "ingest") as ingest:
        assert ingest.wait(60) == 0
    env["RECSYS_SOURCE"] = json.dumps({"uri": str(source), "query": nights.ENDLESS})
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    with running(own, tmp_path, "serve", "--port", str(port)):
        until(lambda: "train/on-demand" in log_of(tmp_path).read_text(), 120)
        night = start_run(env, "nightly/daily")
        until(lambda: state_of(env, night) == "RUNNING", 120)
        time.sleep(5)  # into the query; before it the end is the same
        assert prefect(env, "flow-run", "cancel", night).returncode == 0
        until(lambda: state_of(env, night) == "CANCELLED", 60)
    statement = "select status, error from runs where flow = 'nightly'"
    rows = query_catalog(Lake(str(lake), ObjectStorage()), statement, {})
    assert rows.to_pylist() == [{"status": "cancelled", "error": "stopped by SIGTERM"}]


@pytest.mark.parametrize(
    ("stop", "ready"), [(terminate, False), (terminate, True), (ctrl_c, True), (hang_up, True)]
)
def test_stopping_leaves_no_server_behind(
    tmp_path: Path,
    prefect_home: Path,
    stop: Callable[[subprocess.Popen[bytes]], None],
    ready: bool,
) -> None:
    port = free_port()
    env = {**os.environ, "PREFECT_HOME": str(prefect_home), "RECSYS_LAKE": str(tmp_path / "lake")}
    env["RECSYS_SOURCE__URI"] = "shop.parquet"
    env.pop("PREFECT_API_URL", None)
    with running(env, tmp_path, "serve", "--port", str(port), stop=stop):
        until(lambda: "starting a Prefect server" in log_of(tmp_path).read_text(), 60)
        if ready:
            until(lambda: "train/on-demand" in log_of(tmp_path).read_text(), 120)
        else:
            time.sleep(1)

    def server() -> list[psutil.Process]:
        wanted = {"server", "start", str(port)}
        return [
            each
            for each in psutil.process_iter(["cmdline"])
            if wanted <= set(each.info["cmdline"] or [])
        ]

    until(lambda: not server(), 30)


@pytest.mark.parametrize(("stop", "number"), [(terminate, signal.SIGTERM), (ctrl_c, signal.SIGINT)])
def test_a_stopped_night_is_recorded_and_leaves_no_server_behind(
    tmp_path: Path,
    prefect_home: Path,
    stop: Callable[[subprocess.Popen[bytes]], None],
    number: signal.Signals,
) -> None:
    source, lake = tmp_path / "source.duckdb", tmp_path / "lake"
    nights.make_source(source)
    slow = json.dumps({"epochs": 10_000, "overrides": {"patience": 10_000}})
    env = nights.environment(source, lake, "", RECSYS_TRAINING=slow, PREFECT_HOME=str(prefect_home))
    del env["PREFECT_API_URL"]
    with running(env, tmp_path, "nightly", "--train", "always", stop=stop) as night:
        until(lambda: (lake / "interactions").exists() or night.poll() is not None, 120)
        servers = psutil.Process(night.pid).children(recursive=True)
    assert night.returncode == 128 + number
    assert servers
    assert not psutil.wait_procs(servers, 30)[1]
    rows = query_catalog(Lake(str(lake), ObjectStorage()), "select status, error from runs", {})
    assert rows.to_pylist() == [{"status": "cancelled", "error": f"stopped by {number.name}"}]
