"""Stopping `recsys serve` and `recsys nightly`: no process is left, and the night is recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from recsys.catalog.query import query_catalog
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.flows import nights
from tests.flows.processes import ctrl_c, hang_up, log_of, running, servers_of, terminate, until
from tests.sampling import sample
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable


# SIGTERM to one that is ready: test_kill_serve.py.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "ready"), sample([(terminate, False), (ctrl_c, True), (hang_up, True)], 0)
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
            until(lambda: servers_of(port), 60)
    until(lambda: not servers_of(port), 30)


@pytest.mark.long  # recorded: test_cli.py; its server: test_kill_serve.py
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
