"""One `recsys serve` for the tests of two files, on a real Prefect server of its own.

Its first night comes by schedule; the schedule is paused then, and runs are asked for.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from recsys.catalog.query import query_catalog
from recsys.errors import LakeError
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.flows import nights
from tests.flows.processes import api, log_of, running, until
from tests.servers import free_port

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
    def password(self) -> str:
        return (Path(self.env["PREFECT_HOME"]) / "recsys-serve" / "password").read_text()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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


@pytest.fixture(scope="session")
def served(_prefect_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`recsys serve` in a folder with packages of other people; its first night has come."""
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    source, lake = folder / "source.duckdb", folder / "lake"
    nights.make_source(source)
    # With a space: what is printed can be pasted into a shell.
    home = shutil.copytree(_prefect_template, folder / "a home")
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
        daily = api(env, "GET", "deployments/name/nightly/daily").json()["id"]
        until(lambda: runs_in(env, daily, "RUNNING"), 120)
        api(env, "POST", f"deployments/{daily}/pause_deployment").raise_for_status()
        until(lambda: shop.rows(completed("nightly")), 180)
        until(lambda: not runs_in(env, daily, "SCHEDULED", "PENDING", "RUNNING"), 120)
        yield shop


def runs_in(env: dict[str, str], deployment: str, *types: str) -> int:
    """Runs of a deployment whose state is of one of these types."""
    states = {"state": {"type": {"any_": [*types]}}}
    of = {"id": {"any_": [deployment]}}
    answer = api(env, "POST", "flow_runs/count", flow_runs=states, deployments=of)
    return int(answer.raise_for_status().json())
