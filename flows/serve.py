"""Serve the deployments from this machine, with a Prefect server of its own when none is set."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import prefect
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.nightly import nightly
from flows.train import train
from recsys.errors import ConfigurationError
from recsys.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

_START_SECONDS = 120.0


def serve(
    cron: str, timezone: str | None, training: str, port: int, say: Callable[[str], None]
) -> None:
    """Serve ``nightly/daily`` on a schedule and ``train/on-demand`` until stopped.

    One run at a time: the lake has a single writer.

    Args:
        cron: when nightly runs, e.g. ``"0 2 * * *"``.
        timezone: of the schedule and of run dates, e.g. ``"Europe/Berlin"``; the settings' own
            when not given.
        training: when a night trains: ``train`` of `nightly`.
        port: port of the Prefect server, where one has to be started.
        say: told where the server is.

    Raises:
        ConfigurationError: the schedule is not valid, no source is configured, or the port is
            taken.
    """
    if timezone is not None:
        timezone = Settings(timezone=timezone).timezone
        os.environ["RECSYS_TIMEZONE"] = timezone  # the processes that run the flows read it
    else:
        timezone = Settings().timezone
    try:
        schedule = Cron(cron, timezone=timezone)
        made = nightly.to_deployment("daily", schedule=schedule, parameters={"train": training})
        daily = _deployment(made)
    except ValueError as error:
        raise ConfigurationError(
            f"schedule {cron!r} in time zone {timezone!r} is not valid: {error}"
        ) from error
    Settings().required_source()
    with _server(port, say):
        prefect.serve(daily, _deployment(train.to_deployment("on-demand")), limit=1)


def _deployment(made: RunnerDeployment | Coroutine[Any, Any, RunnerDeployment]) -> RunnerDeployment:
    """Narrow what Prefect types for callers with and without an event loop; we have none."""
    assert isinstance(made, RunnerDeployment)  # noqa: S101 - a type, not a condition
    return made


@contextmanager
def _server(port: int, say: Callable[[str], None]) -> Iterator[None]:
    """Use the configured Prefect API, or start a server as a child for as long as we run."""
    configured = PREFECT_API_URL.value()
    if configured:
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
        _wait(api, server)
        say(f"ready; elsewhere: export PREFECT_API_URL={api}")
        # The children that run the flows read the environment, this process its settings.
        os.environ["PREFECT_API_URL"] = api
        with temporary_settings({PREFECT_API_URL: api}):
            yield
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(api: str, server: subprocess.Popen[bytes]) -> None:
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
