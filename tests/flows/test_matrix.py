"""Every deployment, by schedule, by API and by command; from `recsys serve` and on a work pool.

All share one Prefect server and one lake. Short siblings: tests/flows/test_serve.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import entrypoints
from flows.deployments import beside_flows
from recsys.catalog.query import query_catalog
from recsys.lake.tables import Lake
from recsys.registry.promote import promote
from recsys.settings import ObjectStorage
from tests.flows import nights
from tests.flows.processes import (
    ROOT,
    api,
    deploy,
    log_of,
    prefect,
    running,
    start_run,
    until,
)
from tests.servers import free_port
from tests.servers import running as server_running

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

DAY = date.today() - timedelta(days=80)  # not so long ago that its lists expire
_ENTRIES = yaml.safe_load(beside_flows("prefect.yaml").read_text())["deployments"]
DEPLOYMENTS = [
    f"{getattr(entrypoints, each['entrypoint'].rpartition('.')[2]).name}/{each['name']}"
    for each in _ENTRIES
]
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass
class Shop:
    """A lake with two days of lists and two models, and the server of whoever runs its flows."""

    env: dict[str, str]
    folder: Path
    lake: Path
    models: list[str] = field(default_factory=list)
    asked: int = 0  # runs so far: each wants something new

    def parameters(self, deployment: str) -> dict[str, Any]:
        """What a run needs to have something to do."""
        self.asked += 1
        turn = self.asked % 2
        why = {"why": f"run {self.asked}"}
        day = str(DAY + timedelta(days=self.asked))
        table: dict[str, dict[str, Any]] = {
            "nightly/daily": {"train": "never", "catch_up": "all"},
            "train/weekly": {"epochs": 1, "seed": self.asked},
            "train/on-demand": {"epochs": 1, "seed": self.asked},
            "maintain/weekly": {"dry_run": bool(turn)},
            "backfill/on-demand": {"first": day, "last": day, "as_of": "now"},
            "lists-rollback/on-demand": {"run_date": str(DAY), "to": 1 + turn, **why},
            "promote/on-demand": {"model_id": self.models[turn], **why},
            "rollback/on-demand": why,
            "watch/daily": {},
        }
        return table[deployment]

    def row(self, run_id: str) -> dict[str, Any]:
        """The row of a run in the catalog."""
        lake = Lake(str(self.lake), ObjectStorage())
        statement = "select status, parameters from runs where run_id = $run_id"
        (row,) = query_catalog(lake, statement, {"run_id": run_id}).to_pylist()
        return dict(row)


@pytest.fixture(scope="module")
def shop(_prefect_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, port = tmp_path_factory.mktemp("shop"), free_port()
    source, lake, address = folder / "source.duckdb", folder / "lake", f"http://127.0.0.1:{port}"
    nights.make_source(source)
    home = shutil.copytree(_prefect_template, folder / "prefect")
    env = nights.environment(source, lake, f"{address}/api", PREFECT_HOME=str(home))
    env |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "RECSYS_HOME": str(folder)}
    env |= {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    env |= {"PYTHONPATH": str(ROOT), "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
    lists = ("recommend", "--as-of", "now")
    for command in (
        ("ingest",),
        ("train", "--set", "seed=1", "--set", "epochs=1"),
        ("train", "--set", "seed=2", "--set", "epochs=1"),
        lists,
        (*lists, "--run-date", str(DAY)),
    ):
        recsys(env, folder, *command)
    opened = Lake(str(lake), ObjectStorage())
    models = opened.rows("models", ["model_id"])["model_id"].to_pylist()
    for turn in range(4):  # what a rollback goes back to
        promote(opened, models[turn % 2], why="a test", run_id=f"turn {turn}")
    recsys(env, folder, *lists, "--run-date", str(DAY), "--replace", "another model serves")
    editions = opened.rows("editions", ["edition"], where=f"run_date = '{DAY}'")
    assert (len(models), len(editions)) == (2, 2)
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    with server_running(command, folder / "server.log", address, own, 180):
        yield Shop(env, folder, lake, models)


def recsys(env: dict[str, str], folder: Path, *arguments: str) -> None:
    program = [str(Path(sys.executable).parent / "recsys"), *arguments]
    done = subprocess.run(program, env=env, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 or arguments[0] == "train", done.stderr  # by the gate


@contextmanager
def served(shop: Shop) -> Iterator[None]:
    with running(shop.env, shop.folder, "serve", "--train", "never"):
        until(lambda: "watch/daily" in log_of(shop.folder).read_text(), 180)
        yield


@contextmanager
def pooled(shop: Shop) -> Iterator[None]:
    deploy(shop.env)
    with running(shop.env, shop.folder, "worker", "start", "--pool", "recsys", program="prefect"):
        yield


@pytest.fixture(scope="module", params=[served, pooled], ids=["serve", "pool"])
def runner(request: pytest.FixtureRequest, shop: Shop) -> Iterator[str | None]:
    """Who runs the deployments: the name of the work pool, or nobody's for `recsys serve`."""
    with request.param(shop):
        yield "recsys" if request.param is pooled else None
    for name in DEPLOYMENTS:  # a deployment is of one of the two
        identity = api(shop.env, "GET", f"deployments/name/{name}").json()["id"]
        api(shop.env, "DELETE", f"deployments/{identity}").raise_for_status()


def by_schedule(shop: Shop, deployment: str, parameters: dict[str, Any]) -> str:
    """Give a deployment a schedule, as an operator does, and wait for its first run."""
    found = api(shop.env, "GET", f"deployments/name/{deployment}").json()["id"]
    start = datetime.now(UTC) + timedelta(seconds=20)
    clock = {"interval": 86400, "anchor_date": start.isoformat(), "timezone": "UTC"}
    wanted = [{"schedule": clock, "active": True, "parameters": parameters}]
    api(shop.env, "POST", f"deployments/{found}/schedules", wanted).raise_for_status()
    soon = {"after_": start.isoformat(), "before_": (start + timedelta(hours=1)).isoformat()}

    def due() -> Any:
        answer = api(
            shop.env,
            "POST",
            "flow_runs/filter",
            deployments={"id": {"any_": [found]}},
            flow_runs={"expected_start_time": soon},
        )
        return [run for run in answer.raise_for_status().json() if run["auto_scheduled"]]

    return str(until(due, 120)[0]["id"])


def by_api(shop: Shop, deployment: str, parameters: dict[str, Any]) -> str:
    return start_run(shop.env, deployment, **parameters)


def by_command(shop: Shop, deployment: str, parameters: dict[str, Any]) -> str:
    """As docs/deployments.md types it."""
    given = [f"-p{name}={json.dumps(value)}" for name, value in parameters.items()]
    done = prefect(shop.env, "deployment", "run", deployment, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(line.split()[-1] for line in done.stdout.splitlines() if "UUID" in line)


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_deployment_runs_by_schedule_by_api_and_by_command(
    shop: Shop, runner: str | None, deployment: str
) -> None:
    asked = {}
    for way in (by_schedule, by_api, by_command):
        parameters = shop.parameters(deployment)
        asked[way(shop, deployment, parameters)] = (way, parameters)
    for run_id, (way, parameters) in asked.items():

        def ended(run_id: str = run_id) -> Any:
            run = api(shop.env, "GET", f"flow_runs/{run_id}").raise_for_status().json()
            return run if run["state_type"] in ENDED else None

        run = until(ended, 200)
        said = (way.__name__, run["state"])
        is_rejected = deployment.startswith("train/") and run["state"]["name"] == "Rejected"
        assert run["state_type"] == "COMPLETED" or is_rejected, said
        assert run["auto_scheduled"] == (way is by_schedule), said
        assert run["work_pool_name"] == runner, said
        if deployment != "watch/daily":  # it leaves no row
            row = shop.row(run_id)
            assert row["status"] == ("rejected" if is_rejected else "completed"), said
            stored = json.loads(row["parameters"])
            assert stored | parameters == stored, said
