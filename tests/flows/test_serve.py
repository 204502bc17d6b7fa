"""`recsys serve` on a real Prefect server of its own, each piece a process; one for all tests.

The first night comes by schedule; the schedule is paused then, and runs are asked for.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from recsys.catalog.query import query_catalog
from recsys.errors import LakeError
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.conftest import free_port
from tests.flows import nights
from tests.flows.processes import (
    api,
    ask_for_run,
    cancel,
    hang_up,
    in_use,
    log_of,
    prefect,
    running,
    servers_of,
    start_run,
    state_of,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Served(NamedTuple):
    process: subprocess.Popen[bytes]
    env: dict[str, str]  # of whoever uses its server
    folder: Path
    lake: Path
    source: Path
    port: int

    @property
    def log(self) -> str:
        return log_of(self.folder).read_text()

    def rows(self, statement: str, **parameters: object) -> list[dict[str, Any]]:
        """Rows of the catalog; none where it is not there yet."""
        try:
            found = query_catalog(Lake(str(self.lake), ObjectStorage()), statement, parameters)
        except LakeError:
            return []
        rows: list[dict[str, Any]] = found.to_pylist()
        return rows


def completed(flow: str) -> str:
    """The runs of a flow that came to their end."""
    ended = "status in ('completed', 'rejected')"
    return f"select * from runs where flow = '{flow}' and {ended} order by started"


@pytest.fixture(scope="module")
def served(_prefect_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`recsys serve` in a folder with packages of other people; its first night has come."""
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    source, lake = folder / "source.duckdb", folder / "lake"
    nights.make_source(source)
    home = shutil.copytree(_prefect_template, folder / "prefect")
    address = f"http://127.0.0.1:{port}/api"
    env = nights.environment(source, lake, address, PREFECT_HOME=str(home))
    env |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    for package in ("flows", "recsys", "sql"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    when = ("--cron", "* * * * * */20", "--timezone", "Europe/Berlin", "--train", "never")
    with running(own, folder, "serve", "--port", str(port), *when) as process:
        shop = Served(process, env, folder, lake, source, port)
        until(lambda: "train/on-demand" in shop.log, 120)
        until(lambda: shop.rows(completed("nightly")), 180)
        daily = api(env, "GET", "deployments/name/nightly/daily").json()["id"]
        api(env, "POST", f"deployments/{daily}/pause_deployment").raise_for_status()
        until(lambda: not under_way(env, daily), 120)
        yield shop


def under_way(env: dict[str, str], deployment: str) -> int:
    """Runs of a deployment that wait or run."""
    states = {"state": {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}}}
    of = {"id": {"any_": [deployment]}}
    answer = api(env, "POST", "flow_runs/count", flow_runs=states, deployments=of)
    return int(answer.raise_for_status().json())


@pytest.mark.timeout(400)
def test_a_served_night_comes_by_schedule_in_a_folder_with_other_flows(served: Served) -> None:
    outcome = json.loads(served.rows(completed("nightly"))[0]["outcome"])
    assert outcome["recommend"]["users"] == nights.USERS
    assert "train" not in outcome


def test_a_training_comes_by_hand_with_parameters_that_are_checked(served: Served) -> None:
    refused = ask_for_run(served.env, "train/on-demand", epochs=0)
    assert refused.is_client_error
    assert "epochs" in refused.text
    unknown = prefect(served.env, "deployment", "run", "train/on-demand", "-p", "epoch=2")
    assert unknown.returncode != 0, "Prefect's command knows the names"
    start_run(served.env, "train/on-demand", epochs=1, seed=5)
    trained = until(lambda: served.rows(completed("train")), 120)[0]
    parameters = json.loads(trained["parameters"])
    assert (parameters["epochs"], parameters["seed"]) == (1, 5)
    model = json.loads(trained["outcome"])["train"]
    assert (model["epochs"], model["status"]) == (1, "champion") or model["status"] == "rejected"


def test_a_night_cancelled_within_a_query_is_cancelled_and_recorded(served: Served) -> None:
    nights.make_endless(served.source)
    night = start_run(served.env, "nightly/daily")
    until(lambda: in_use(served.process.pid, served.source), 120)
    cancel(served.env, night)
    until(lambda: state_of(served.env, night) == "CANCELLED", 60)
    rows = served.rows("select status, error from runs where run_id = $night", night=night)
    assert rows == [{"status": "cancelled", "error": "stopped by SIGTERM"}]


def test_a_closed_terminal_leaves_no_server_behind(served: Served) -> None:
    """The last test here: it ends what the others use."""
    assert servers_of(served.port)
    hang_up(served.process)
    served.process.wait(60)
    until(lambda: not servers_of(served.port), 30)
