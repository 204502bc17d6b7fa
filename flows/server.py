"""Prefect servers of our own: the temporary one of a single command, and that of `recsys serve`.

Both listen on this machine alone, ask for a password, and end with the process that started them.
Any page in a browser on this machine may send them requests: without the password they refuse.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from flows import children
from flows.server_checks import check_home, check_server, without_user
from recsys.errors import ConfigurationError
from recsys.temporary import replace_file, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_HOST = "127.0.0.1"


def start_temporary_server() -> None:
    """Start a Prefect server that ends with this process, unless PREFECT_API_URL names one.

    One that is named is checked. Progress is told by bars, not by log lines: nobody reads the log
    of a temporary server, and an error reaches a person as a message of ours. A configured server
    keeps its own settings.

    Raises:
        ConfigurationError: the server did not start, or the one named can't be used.
    """
    check_home()
    if "PREFECT_API_URL" not in os.environ:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

    import prefect
    from prefect import settings

    if api := settings.PREFECT_API_URL.value():
        check_server(api)
        return
    if not settings.PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        return
    stack = ExitStack()
    # Registered before Prefect's own, and so called after them: what Prefect still has to report at
    # the exit reaches the server.
    atexit.register(stack.close)
    folder = stack.enter_context(temporary_folder())
    stack.enter_context(children.parent_of_children(folder))
    command = ["uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--app-dir", str(prefect.__module_path__.parent)]
    command += ["--host", _HOST, "--log-level", "error", "--lifespan", "on"]
    options = {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }
    log = folder / "server.log"
    stack.enter_context(_server(command, _free_port(), _new_password(), options, log))


@contextmanager
def prefect_server(
    port: int, deployments: Collection[str], say: Callable[[str], None]
) -> Iterator[None]:
    """Use the Prefect API of PREFECT_API_URL, or run a server while the block runs.

    Runs that are started within the block end with this process. What an earlier process left when
    it was killed is ended first.

    Args:
        port: where our own server listens.
        deployments: full names of what is served, such as ``nightly/daily``.
        say: told where the server is and how to use it.

    Raises:
        ConfigurationError: another `recsys serve` lives, the port is taken, the server did not
            start, or the one of PREFECT_API_URL can't be used.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME

    configured = PREFECT_API_URL.value()
    if configured:
        check_server(configured)
    home = PREFECT_HOME.value()
    folder = home / "recsys-serve"
    if configured:
        folder /= hashlib.sha256(configured.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        other = stack.enter_context(_serve_lock(folder))
        if other and not configured:  # each would run the nights of the other
            raise ConfigurationError(
                f"`recsys serve` (process {other}) runs already with PREFECT_HOME={home}: stop it, "
                "or set another PREFECT_HOME and give another --port"
            )
        if other:
            folder = stack.enter_context(temporary_folder())
        elif count := children.end_leftovers(folder):
            say(f"ended {count} processes that a killed `recsys serve` had left")
        stack.enter_context(children.parent_of_children(folder))
        if configured:
            say(f"Prefect API: {without_user(configured)}")
            yield
            return
        password, file = _password(folder)
        say(f"starting a Prefect server at http://{_HOST}:{port}")
        command = ["prefect", "server", "start", "--host", _HOST]
        stack.enter_context(_server(command, port, password, {}, folder / "server.log"))
        say(
            f"ready; its page asks for the line in {file}; in another terminal:\n"
            f"  export PREFECT_API_URL={_api(port)}\n"
            f'  export PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(file))})"'
        )
        _close_lost_runs(deployments)
        yield


@contextmanager
def _server(
    command: list[str], port: int, password: str, options: dict[str, str], log: Path
) -> Iterator[None]:
    """Run a server as a child; while the block runs, Prefect uses it, here and in our children.

    Args:
        command: a module and its arguments.
        port: where it listens.
        password: "user:password" that it asks for.
        options: more variables of its environment.
        log: keeps what it says.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with socket.socket() as probe:
        if probe.connect_ex((_HOST, port)) == 0:
            raise ConfigurationError(
                f"port {port} is taken: give another with --port, or, if a Prefect server listens "
                f"there, set PREFECT_API_URL={_api(port)}"
            )
    origins = f"http://{_HOST}:{port},http://localhost:{port}"
    environment = {
        **os.environ,
        **options,
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origins,
        "PREFECT_SERVER_UI_API_URL": _api(port),  # the page would call port 4200
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # The newer page asks a host of Amplitude's for its configuration, whatever is set.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    with log.open("w") as output:
        server = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
            [sys.executable, "-P", children.__file__, *command, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us: runs end while the server answers
        )
    try:
        _wait_until_healthy(_api(port), server, log)
        # The children that run the flows read the environment, this process its settings.
        os.environ |= {"PREFECT_API_URL": _api(port), "PREFECT_API_AUTH_STRING": password}
        with temporary_settings({PREFECT_API_URL: _api(port), PREFECT_API_AUTH_STRING: password}):
            yield
    finally:
        for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
            os.environ.pop(name, None)
        _stop(server)


@contextmanager
def _serve_lock(folder: Path) -> Iterator[str | None]:
    """Lock a folder while the block runs, or give the id of the process that has locked it."""
    with (folder / "serve.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            yield lock.read() or "unknown"
            return
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield None


def _password(folder: Path) -> tuple[str, Path]:
    """Return "user:password" of the server and the file that keeps it, readable by the user alone.

    One that the user has configured for the server comes first.
    """
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING

    file = folder / "password"
    before = file.read_text() if file.exists() else ""
    password = str(PREFECT_SERVER_API_AUTH_STRING.value() or before or _new_password())
    if password != before:
        with replace_file(file) as new:
            new.touch(mode=0o600)
            new.write_text(password)
    return password, file


def _new_password() -> str:
    return f"recsys:{secrets.token_urlsafe(24)}"


def _close_lost_runs(deployments: Collection[str]) -> None:
    """Call the runs crashed that went on when an earlier `recsys serve` was killed."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterName,
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    lost = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=lost))
    flows, names = zip(*(name.split("/") for name in deployments), strict=True)
    flow_names = FlowFilterName(any_=[*flows])
    deployment_names = DeploymentFilterName(any_=[*names])
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(
            flow_filter=FlowFilter(name=flow_names),
            flow_run_filter=FlowRunFilter(state=state),
            deployment_filter=DeploymentFilter(name=deployment_names),
        ):
            message = "`recsys serve` was killed while this run went on"
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def _api(port: int) -> str:
    return f"http://{_HOST}:{port}/api"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait_until_healthy(api: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=2):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    raise ConfigurationError(
        f"the Prefect server did not answer at {api}; the last that it said: "
        f"{said[-1].strip() if said else 'nothing'} (its log is {log})"
    )
