"""What Prefect can't work with is refused in a sentence, before anything is started."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import prefect
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.alerts import crash_lost_runs
from flows.server_checks import check_server, one_sentence_for_server_faults
from recsys.errors import ConfigurationError, RecsysError
from tests.servers import free_port


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """Serve one answer to everything, as the API of another server may give it."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            thread.join()


def check(api: str) -> None:
    with temporary_settings({PREFECT_API_URL: api}):
        check_server(api)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, '"3.4.0"', "that server is Prefect 3.4.0, and this is"),
        (401, "{}", "it wants its password; set PREFECT_API_AUTH_STRING"),
        (404, "{}", "it answers 404"),
        (200, "<html>", "no Prefect server answers"),
        (200, "[]", "no Prefect server answers"),
    ],
)
def test_a_server_that_cannot_be_used_is_named_with_what_to_do(
    status: int, body: str, message: str
) -> None:
    with (
        answering(status, body) as place,
        pytest.raises(ConfigurationError, match=message) as refusal,
    ):
        check(f"http://{place}")
    assert str(refusal.value).startswith(f"PREFECT_API_URL=http://{place} can't be used: ")


def test_an_error_of_the_server_is_a_sentence() -> None:
    with (
        answering(418, "{}") as place,
        temporary_settings({PREFECT_API_URL: f"http://{place}"}),
        pytest.raises(RecsysError, match=r"the Prefect server failed: .*418.*do this again"),
        one_sentence_for_server_faults(),
    ):
        crash_lost_runs()


def test_a_server_of_this_release_is_used() -> None:
    with answering(200, f'"{prefect.__version__}"') as place:
        check(f"http://{place}")


@pytest.mark.parametrize("user", ["", "user:secret@", "user:s/e?c@r#et@"])
def test_a_dead_address_is_shown_without_its_password(user: str) -> None:
    place = f"127.0.0.1:{free_port()}/api"
    with pytest.raises(ConfigurationError) as refusal:
        check(f"http://{user}{place}")
    assert str(refusal.value).startswith(f"PREFECT_API_URL=http://{place} ")


@pytest.mark.slow
def test_a_home_that_cannot_be_used_is_one_line_of_serve(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = {**os.environ, "PREFECT_HOME": str(tmp_path / "file" / "home")}
    env["RECSYS_SOURCE__URI"] = "shop.parquet"
    command = [str(Path(sys.executable).parent / "recsys"), "serve", "--port", str(free_port())]
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert said.startswith("recsys: Prefect can't keep its files in ")
    assert said.endswith("Not a directory; set PREFECT_HOME to a folder that you may write to")
