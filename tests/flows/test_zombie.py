"""A run whose machine died: nobody reports its end, and Prefect calls it Crashed by itself."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import free_port
from tests.flows import nights
from tests.flows.processes import (
    api,
    log_of,
    running,
    start_run,
    state_of,
    until,
)
from tests.servers import running as server_running


@pytest.mark.long  # Prefect waits for two minutes without a heartbeat
@pytest.mark.timeout(900)
def test_a_run_without_heartbeats_becomes_crashed_by_the_automation(
    prefect_home: Path, tmp_path: Path
) -> None:
    source, lake, port = tmp_path / "source.duckdb", tmp_path / "lake", free_port()
    nights.make_source(source)
    address = f"http://127.0.0.1:{port}"
    env = nights.environment(source, lake, f"{address}/api", PREFECT_HOME=str(prefect_home))
    env |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    endless = env | {"RECSYS_SOURCE": json.dumps({"uri": str(source), "query": nights.ENDLESS})}
    with server_running(command, tmp_path / "server.log", address, own, 180):
        with running(endless, tmp_path, "serve", "--train", "never", stop=power_cut):
            until(lambda: "train/on-demand" in log_of(tmp_path).read_text(), 180)
            lost = start_run(env, "nightly/daily")
            until(lambda: lake.exists(), 180)
            until(lambda: heartbeats(env, lost), 120)
        killed = time.monotonic()
        assert state_of(env, lost) == "RUNNING", "nobody was left to say what became of it"
        until(lambda: state_of(env, lost) == "CRASHED", 400)
        shown = api(env, "GET", f"flow_runs/{lost}").json()
    print(f"Crashed {time.monotonic() - killed:.0f} s after it was killed")
    assert shown["state"]["message"] == "the process of this run sent no heartbeat for two minutes"


def power_cut(process: subprocess.Popen[bytes]) -> None:
    """End `recsys serve` and its runs at once: none sees the other go, as when a machine stops."""
    serve = psutil.Process(process.pid)
    serve.suspend()
    for each in serve.children(recursive=True):
        each.kill()
    serve.kill()


def heartbeats(env: dict[str, str], flow_run: str) -> int:
    """Heartbeats of a run that the server has."""
    resource = {"id": [f"prefect.flow-run.{flow_run}"]}
    wanted = {"resource": resource, "event": {"name": ["prefect.flow-run.heartbeat"]}}
    answer = api(env, "POST", "events/filter", filter=wanted).raise_for_status()
    return int(answer.json()["total"])
