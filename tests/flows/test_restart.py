"""The Prefect server goes and comes back while a night runs: the night ends as if it had stayed."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from recsys.catalog.query import query_catalog
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.flows import nights
from tests.flows.processes import log_of, running, start_run, state_of, until
from tests.servers import free_port
from tests.servers import running as server_running

_EPOCHS = 1_500


@pytest.mark.long  # a Prefect server twice, and a night that is longer than its second start
@pytest.mark.timeout(600)
def test_a_night_goes_on_while_its_server_restarts(prefect_home: Path, tmp_path: Path) -> None:
    source, lake, port = tmp_path / "source.duckdb", tmp_path / "lake", free_port()
    nights.make_source(source)
    address = f"http://127.0.0.1:{port}"
    slow = {"width": 16, "blocks": 1, "max_length": 10, "patience": _EPOCHS}
    env = nights.environment(
        source,
        lake,
        f"{address}/api",
        PREFECT_HOME=str(prefect_home),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        RECSYS_TRAINING=json.dumps({"epochs": _EPOCHS, "overrides": slow}),
    )
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}

    with ExitStack() as server:
        server.enter_context(server_running(command, tmp_path / "first.log", address, own, 180))
        with running(env, tmp_path, "serve"):
            until(lambda: "train/on-demand" in log_of(tmp_path).read_text(), 180)
            night = start_run(env, "nightly/daily", train="always")
            until(lambda: list((lake / "batches").glob("*.parquet")), 180)
            server.close()
            assert not list((lake / "models").glob("*.parquet")), "the night was over before"
            server.enter_context(server_running(command, tmp_path / "next.log", address, own, 180))
            until(lambda: state_of(env, night) not in ("PENDING", "RUNNING"), 300)
            assert state_of(env, night) == "COMPLETED"
    rows = query_catalog(
        Lake(str(lake), ObjectStorage()), "select status, error, outcome from runs", {}
    ).to_pylist()
    assert [(row["status"], row["error"]) for row in rows] == [("completed", None)]
    outcome = json.loads(rows[0]["outcome"])
    assert outcome["recommend"]["users"] == nights.USERS
    assert outcome["train"]["epochs"] == _EPOCHS
