"""The Prefect server of `recsys serve` obeys whoever has its password, and nobody else."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Running

from flows import server
from flows.ingest import ingest_flow
from flows.nightly import nightly_flow
from recsys.errors import ConfigurationError
from recsys.settings import Source
from tests.conftest import free_port
from tests.flows import nights
from tests.flows.processes import log_of, prefect, running, start_run, state_of, until

FOREIGN = {"Origin": "https://evil.example"}


def test_a_server_obeys_whoever_has_its_password_and_no_page_of_another_address(
    tmp_path: Path,
) -> None:
    source, port = tmp_path / "source.duckdb", free_port()
    secret = tmp_path / "secret.csv"
    secret.write_text("user_id,item_id,timestamp\n1,2,2026-01-01\n")
    nights.make_source(source)
    home = tmp_path / "a home"  # with a space: what is printed can be pasted into a shell
    api = f"http://127.0.0.1:{port}/api"
    env = nights.environment(source, tmp_path / "lake", api, PREFECT_HOME=str(home))
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    with running(own, tmp_path, "serve", "--port", str(port)), httpx.Client() as client:
        until(lambda: "train/on-demand" in log_of(tmp_path).read_text(), 120)
        text = log_of(tmp_path).read_text()
        file = home / "recsys-serve" / "password"
        password = file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
        assert password not in text

        foreign = client.post(f"{api}/deployments/filter", json={}, headers=FOREIGN)
        assert foreign.status_code == 401
        assert client.post(f"{api}/flow_runs/", json={}).status_code == 401
        asked = {"Access-Control-Request-Method": "POST", **FOREIGN}
        preflight = client.options(f"{api}/deployments/filter", headers=asked)
        for answer in (foreign, preflight):
            assert "access-control-allow-origin" not in answer.headers
        token = base64.b64encode(password.encode()).decode()
        known = {"Authorization": f"Basic {token}", "Origin": f"http://localhost:{port}"}
        answer = client.post(f"{api}/deployments/filter", json={}, headers=known)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == known["Origin"]
        page = client.get(f"http://127.0.0.1:{port}/ui-settings")
        assert page.json()["auth"] == "BASIC", "Prefect's page asks for the password"

        lines = [line.strip() for line in text.splitlines() if line.startswith("  export ")]
        code = "; ".join([*lines, f"{sys.executable} -m prefect deployment ls"])
        shown = subprocess.run(["bash", "-c", code], env=own, capture_output=True, text=True)
        assert "nightly/daily" in shown.stdout, shown.stderr

        given = json.dumps({"uri": str(secret)})
        night = start_run(env, "nightly/daily", "-p", f"source={given}")
        until(lambda: state_of(env, night) == "FAILED", 120)
        logs = prefect(env, "flow-run", "logs", night).stdout
        assert "this run brings a source of its own" in " ".join(logs.split())
        assert not (tmp_path / "lake" / "interactions").exists()


def test_a_run_brings_a_source_of_its_own_only_where_that_is_allowed(
    tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured, other = tmp_path / "source.duckdb", tmp_path / "other.duckdb"
    for path in (configured, other):
        nights.make_source(path)
    lake = tmp_path / "lake"
    for name, value in nights.environment(configured, lake, prefect_api).items():
        if name.startswith("RECSYS_"):
            monkeypatch.setenv(name, value)
    source = Source(uri=str(other), table="events")
    for flow in (nightly_flow, ingest_flow):
        with pytest.raises(ConfigurationError, match="set allow_source_parameter = true"):
            flow(source=source)
    assert not (lake / "interactions").exists()
    monkeypatch.setenv("RECSYS_ALLOW_SOURCE_PARAMETER", "true")
    ingest_flow(source=source)
    assert (lake / "interactions").exists()


@pytest.mark.parametrize("user", ["", "user:secret@", "user:s/e?c@r#et@"])
def test_a_configured_address_is_shown_without_its_password(tmp_path: Path, user: str) -> None:
    lines: list[str] = []
    configured = {PREFECT_API_URL: f"http://{user}127.0.0.1:1/api", PREFECT_HOME: tmp_path}
    with temporary_settings(configured), server.prefect_server(1, lines.append):
        assert lines == ["Prefect API: http://127.0.0.1:1/api"]


@pytest.mark.usefixtures("prefect_api")
def test_runs_that_were_lost_are_closed_and_those_of_other_flows_are_not() -> None:
    names = [("nightly", "daily"), ("train", "on-demand"), ("etl", "daily"), ("nightly", "hourly")]
    with get_client(sync_client=True) as client:
        runs = []
        for flow, deployment in names:
            identity = client.create_flow_from_name(flow)
            deployed = client.create_deployment(identity, deployment)
            run = client.create_flow_run_from_deployment(deployed)
            client.set_flow_run_state(run.id, Running(), force=True)
            runs.append(run.id)
        server._close_lost_runs()
        states = [client.read_flow_run(run).state_type for run in runs]
    assert [state and state.value for state in states] == [
        "CRASHED",
        "CRASHED",
        "RUNNING",
        "RUNNING",
    ]
