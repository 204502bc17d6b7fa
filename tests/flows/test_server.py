"""The Prefect server of `recsys serve` obeys whoever has its password, and nobody else."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.states import Running

from flows import server
from flows.ingest import ingest_flow
from flows.nightly import nightly_flow
from recsys.errors import ConfigurationError
from recsys.settings import Source
from tests.browser import CHROMIUM, chromium
from tests.conftest import free_port
from tests.flows import nights
from tests.flows.processes import (
    answered,
    api,
    log_of,
    running,
    start_run,
    state_of,
    until,
    with_password,
)

FOREIGN = {"Origin": "https://evil.example"}


class Serving(NamedTuple):
    """`recsys serve` with a server of its own."""

    env: dict[str, str]
    folder: Path
    address: str
    password: str


@pytest.fixture(scope="module")
def serving(_prefect_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder, port = tmp_path_factory.mktemp("serving"), free_port()
    nights.make_source(folder / "source.duckdb")
    # With a space: what is printed can be pasted into a shell.
    home = shutil.copytree(_prefect_template, folder / "a home")
    address = f"http://127.0.0.1:{port}"
    env = nights.environment(
        folder / "source.duckdb", folder / "lake", f"{address}/api", PREFECT_HOME=str(home)
    )
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    with running(own, folder, "serve", "--port", str(port)):
        until(lambda: "train/on-demand" in log_of(folder).read_text(), 120)
        yield Serving(env, folder, address, (home / "recsys-serve" / "password").read_text())
    assert "Traceback" not in log_of(folder).read_text(), "a quiet end"


def test_a_server_obeys_whoever_has_its_password_and_no_page_of_another_address(
    serving: Serving,
) -> None:
    env, folder, address, password = serving
    api = f"{address}/api"
    secret = folder / "secret.csv"
    secret.write_text("user_id,item_id,timestamp\n1,2,2026-01-01\n")
    with httpx.Client() as client:
        text = log_of(folder).read_text()
        assert (folder / "a home/recsys-serve/password").stat().st_mode & 0o777 == 0o600
        assert password not in text

        foreign = client.post(f"{api}/deployments/filter", json={}, headers=FOREIGN)
        assert foreign.status_code == 401
        assert client.post(f"{api}/flow_runs/", json={}).status_code == 401
        asked = {"Access-Control-Request-Method": "POST", **FOREIGN}
        preflight = client.options(f"{api}/deployments/filter", headers=asked)
        for answer in (foreign, preflight):
            assert "access-control-allow-origin" not in answer.headers
        token = base64.b64encode(password.encode()).decode()
        origin = address.replace("127.0.0.1", "localhost")
        known = {"Authorization": f"Basic {token}", "Origin": origin}
        answer = client.post(f"{api}/deployments/filter", json={}, headers=known)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin

        (training,) = (
            each["id"]
            for each in answer.json()
            if each["name"] == "on-demand" and "overrides" in str(each["parameter_openapi_schema"])
        )
        for wrong in (
            {"preset": "nonsense"},
            {"overrides": {"dropuot": 0.1}},
            {"overrides": {"dropout": 1.0}},
            {"seed": 10**20},
        ):
            made = answered(
                partial(
                    client.post,
                    f"{api}/deployments/{training}/create_flow_run",
                    json={"parameters": wrong},
                    headers=known,
                )
            )
            assert made.status_code == 409, (wrong, made.text)
            assert "Validation failed" in made.text

    lines = [line.strip() for line in text.splitlines() if line.startswith("  export ")]
    code = "; ".join([*lines, f"{sys.executable} -m prefect deployment ls"])
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    shown = subprocess.run(["bash", "-c", code], env=own, capture_output=True, text=True)
    assert "nightly/daily" in shown.stdout, shown.stderr

    with receiver() as (url, told):
        command = [str(Path(sys.executable).parent / "recsys"), "alerts", "--webhook", url]
        made = subprocess.run(command, env=with_password(env), cwd=folder, capture_output=True)
        assert made.returncode == 0, made.stderr
        assert b"recsys, lists are late" in made.stderr
        refuse_a_source(serving, secret)
        until(lambda: told, 60)
    (text,) = told
    assert text.startswith(f"recsys: nightly {datetime.now(UTC).date()} is Failed.")
    assert "this run brings a source of its own" in text


@contextmanager
def receiver() -> Iterator[tuple[str, list[str]]]:
    """A place for webhooks, and the texts that came there."""
    told: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append(json.loads(body)["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", told
        finally:
            server.shutdown()
            thread.join()


def refuse_a_source(serving: Serving, secret: Path) -> None:
    """Start a night with a source of its own: it fails, and reads nothing."""
    env, folder = serving.env, serving.folder
    night = start_run(env, "nightly/daily", source={"uri": str(secret)})
    until(lambda: state_of(env, night) == "FAILED", 120)
    wanted = {"flow_run_id": {"any_": [night]}}

    def is_told() -> bool:  # logs come a moment after the state
        logs = api(env, "POST", "logs/filter", logs=wanted).raise_for_status().json()
        return any("this run brings a source of its own" in line["message"] for line in logs)

    until(is_told, 30)
    assert not (folder / "lake" / "interactions").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_its_page_shows_the_deployments_on_any_port_and_asks_nobody_else(serving: Serving) -> None:
    with chromium(serving.folder) as page:
        page.open(f"{serving.address}/deployments")
        page.until_text("Login")
        page.type_into("input[type=password]", serving.password)
        page.evaluate("document.querySelector('button[type=submit]').click()")
        page.until("location.pathname != '/login'")
        page.open(f"{serving.address}/deployments")
        for name in ("daily", "nightly", "weekly", "on-demand", "train"):
            page.until_text(name)
        asked = {url.split("/")[2] for url in page.requests if url.startswith("http")}
        assert asked == {serving.address.removeprefix("http://")}
        assert not page.errors


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
        server._close_lost_runs(["nightly/daily", "train/on-demand"])
        states = [client.read_flow_run(run).state_type for run in runs]
    assert [state and state.value for state in states] == [
        "CRASHED",
        "CRASHED",
        "RUNNING",
        "RUNNING",
    ]
