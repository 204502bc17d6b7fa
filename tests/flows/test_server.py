"""The Prefect server of `recsys serve` obeys whoever has its password, and nobody else."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.browser import CHROMIUM, chromium
from tests.flows.processes import answered, api, start_run, state_of, until, with_password

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.flows.conftest import Served

ZONE = ZoneInfo("Europe/Berlin")  # of the schedule
FOREIGN = {"Origin": "https://evil.example"}


def test_a_server_obeys_whoever_has_its_password_and_no_page_of_another_address(
    served: Served,
) -> None:
    env, folder, address, password = served.env, served.folder, served.address, served.password
    api = f"{address}/api"
    secret = folder / "secret.csv"
    secret.write_text("user_id,item_id,timestamp\n999,2,2026-01-01\n")
    with httpx.Client() as client:
        text = served.log
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
    wrong_name = "deployment run train/on-demand --param epoch=2"
    code = "; ".join([*lines, f"{sys.executable} -m prefect {wrong_name}"])
    own = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
    shown = subprocess.run(["bash", "-c", code], env=own, capture_output=True, text=True)
    assert shown.returncode != 0, "Prefect's command knows the names of parameters"
    assert "'epochs'" in shown.stdout + shown.stderr, "it has asked the server for them"

    with receiver() as (url, told):
        command = [str(Path(sys.executable).parent / "recsys"), "alerts", "--webhook", url]
        made = subprocess.run(command, env=with_password(env), cwd=folder, capture_output=True)
        assert made.returncode == 0, made.stderr
        assert b"recsys, lists are late" in made.stderr
        before = datetime.now(ZONE).date()
        refuse_a_source(served, secret)
        until(lambda: told, 60)
    (text,) = set(told)  # Prefect may call twice
    days = {before, datetime.now(ZONE).date()}
    assert text.startswith(tuple(f"recsys: nightly {day} is Failed." for day in days))
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


def refuse_a_source(served: Served, secret: Path) -> None:
    """Start a night with a source of its own: it fails, and reads nothing."""
    env = served.env
    night = start_run(env, "nightly/daily", source={"uri": str(secret)})
    until(lambda: state_of(env, night) == "FAILED", 120)
    wanted = {"flow_run_id": {"any_": [night]}}

    def is_told() -> bool:  # logs come a moment after the state
        logs = api(env, "POST", "logs/filter", logs=wanted).raise_for_status().json()
        return any("this run brings a source of its own" in line["message"] for line in logs)

    until(is_told, 30)
    assert not served.rows("select * from interactions where user_id = 999")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_its_page_shows_the_deployments_on_any_port_and_asks_nobody_else(served: Served) -> None:
    with chromium(served.folder) as page:
        page.open(f"{served.address}/deployments")
        page.until_text("Login")
        page.type_into("input[type=password]", served.password)
        page.evaluate("document.querySelector('button[type=submit]').click()")
        page.until("location.pathname != '/login'")
        page.open(f"{served.address}/deployments")
        for name in ("daily", "nightly", "weekly", "on-demand", "train"):
            page.until_text(name)
        asked = {url.split("/")[2] for url in page.requests if url.startswith("http")}
        assert asked == {served.address.removeprefix("http://")}
        assert not page.errors
