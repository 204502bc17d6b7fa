"""Prefect servers of our own: the temporary one of a single command, and that of `recsys serve`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recsys.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0


def start_temporary_server() -> None:
    """Start a Prefect server that ends with this process, unless PREFECT_API_URL names one.

    Progress is told by bars, not by log lines: nobody reads the log of a temporary server, and an
    error reaches a person as a message of ours. A configured server keeps its own settings.
    """
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

    from prefect import settings
    from prefect.server.api.server import SubprocessASGIServer

    if settings.PREFECT_API_URL.value() or not settings.PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        return
    # Prefect would start it at its first call; Ctrl-C would then end it before the run that has
    # to report to it, and the run would wait a minute for an answer. Prefect stops it at the exit.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start(
            settings.PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def prefect_server(port: int, say: Callable[[str], None]) -> Iterator[None]:
    """Use the Prefect API of PREFECT_API_URL, or run a server while the block runs.

    Args:
        port: where our own server listens.
        say: told where the server is.

    Raises:
        ConfigurationError: the port is taken, or the server did not start.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if configured := PREFECT_API_URL.value():
        say(f"Prefect API: {configured}")
        yield
        return
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ConfigurationError(
                f"port {port} is taken: give another with --port, or, if a Prefect server listens "
                f"there, set PREFECT_API_URL=http://127.0.0.1:{port}/api"
            )
    api = f"http://127.0.0.1:{port}/api"
    say(f"starting a Prefect server at http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "prefect", "server", "start"]
    server = subprocess.Popen(  # noqa: S603 - our own interpreter, constant arguments
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us: what is served pauses while the server answers
    )
    try:
        _wait_until_healthy(api, server)
        say(f"ready; in another terminal: export PREFECT_API_URL={api}")
        # The children that run the flows read the environment, this process its settings.
        os.environ["PREFECT_API_URL"] = api
        with temporary_settings({PREFECT_API_URL: api}):
            yield
    finally:
        _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait_until_healthy(api: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=2):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ConfigurationError(
        f"the Prefect server did not answer at {api} within {_START_SECONDS:.0f} s: start one "
        "with `prefect server start` to see why, then set PREFECT_API_URL"
    )
