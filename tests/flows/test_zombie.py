"""What Prefect does by itself: a run whose machine died is Crashed, and drift starts a training."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.flows import nights
from tests.flows.processes import (
    ROOT,
    api,
    deploy,
    log_of,
    power_cut,
    running,
    start_run,
    state_of,
    until,
)
from tests.servers import free_port
from tests.servers import running as server_running

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # Prefect waits for two minutes
MESSAGE = "the process of this run sent no heartbeat for two minutes"


class World(NamedTuple):
    env: dict[str, str]
    endless: dict[str, str]  # with a source whose query does not end
    folder: Path
    lake: Path


@pytest.fixture
def world(prefect_home: Path, tmp_path: Path) -> Iterator[World]:
    """A shop, and a Prefect server."""
    source, lake, port = tmp_path / "source.duckdb", tmp_path / "lake", free_port()
    nights.make_source(source)
    address = f"http://127.0.0.1:{port}"
    env = nights.environment(source, lake, f"{address}/api", PREFECT_HOME=str(prefect_home))
    env |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "RECSYS_HOME": str(tmp_path)}
    env |= {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    env |= {"PYTHONPATH": str(ROOT)}
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    endless = env | {"RECSYS_SOURCE": json.dumps({"uri": str(source), "query": nights.ENDLESS})}
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with server_running(command, tmp_path / "server.log", address, own, 180):
        yield World(env, endless, tmp_path, lake)


def test_a_run_without_heartbeats_becomes_crashed_by_the_automation(world: World) -> None:
    with running(world.endless, world.folder, "serve", "--train", "never", stop=power_cut):
        until(lambda: "train/on-demand" in log_of(world.folder).read_text(), 180)
        lost = start_run(world.env, "nightly/daily")
        until(lambda: world.lake.exists(), 180)
        until(lambda: heartbeats(world.env, lost), 120)
    until_crashed(world, lost)


def test_a_worker_that_died_does_not_hold_its_pool(world: World) -> None:
    deploy(world.env)
    make_alerts(world)
    worker = ("worker", "start", "--pool", "recsys")
    other = world.folder / "other"  # where the second worker writes its log
    other.mkdir()
    with ExitStack() as first:
        first.enter_context(
            running(world.endless, world.folder, *worker, program="prefect", stop=power_cut)
        )
        lost = start_run(world.env, "nightly/daily")
        until(lambda: heartbeats(world.env, lost), 180)
        following = start_run(world.env, "nightly/daily", train="never")
        with running(world.env, other, *worker, program="prefect"):
            until(lambda: "started" in log_of(other, "prefect").read_text(), 120)
            first.close()
            time.sleep(10)  # it asks for runs every second
            assert state_of(world.env, following) == "SCHEDULED", "one run at a time"
            until_crashed(world, lost)
            until(lambda: state_of(world.env, following) == "COMPLETED", 180)


def test_drift_starts_a_training(world: World) -> None:
    deploy(world.env)
    make_alerts(world)
    training = api(world.env, "GET", "deployments/name/train/on-demand").json()["id"]
    runs = {"deployments": {"id": {"any_": [training]}}}
    assert api(world.env, "POST", "flow_runs/filter", **runs).json() == []
    tell = (
        "from flows.events import tell_event; from recsys.lake.tables import Lake;"
        "from recsys.settings import ObjectStorage;"
        f"tell_event('recsys.data.drifted', Lake({str(world.lake)!r}, ObjectStorage()), {{}})"
    )
    subprocess.run([sys.executable, "-c", tell], env=world.env, cwd=world.folder, check=True)
    (run,) = until(lambda: api(world.env, "POST", "flow_runs/filter", **runs).json(), 60)
    assert run["created_by"]["type"] == "AUTOMATION"
    assert run["created_by"]["display_value"] == "recsys, the data drifted"


def make_alerts(world: World) -> None:
    program = str(Path(sys.executable).parent / "recsys")
    made = subprocess.run(
        [program, "alerts"], env=world.env, cwd=world.folder, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr


def until_crashed(world: World, lost: str) -> None:
    """Wait until the automation calls a run Crashed whose machine stopped just now."""
    killed = time.monotonic()
    assert state_of(world.env, lost) == "RUNNING", "nobody was left to say what became of it"
    until(lambda: state_of(world.env, lost) == "CRASHED", 400)
    shown = api(world.env, "GET", f"flow_runs/{lost}").json()
    print(f"Crashed {time.monotonic() - killed:.0f} s after it was killed")
    assert shown["state"]["message"] == MESSAGE


def heartbeats(env: dict[str, str], flow_run: str) -> int:
    """Heartbeats of a run that the server has."""
    resource = {"id": [f"prefect.flow-run.{flow_run}"]}
    wanted = {"resource": resource, "event": {"name": ["prefect.flow-run.heartbeat"]}}
    answer = api(env, "POST", "events/filter", filter=wanted).raise_for_status()
    return int(answer.json()["total"])
