"""Commands as processes of their own: started, stopped, waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]

_CLIENT = httpx.Client(timeout=60)  # to make one costs more CPU time than twenty answers


def prefect(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Prefect's, with the password of a server that `recsys serve` started."""
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.run(
        command,
        env=with_password(env),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def deploy(env: dict[str, str]) -> None:
    """Give the deployments to a work pool, as docs/deployments.md says it."""
    file = str(ROOT / "deployments" / "prefect.yaml")
    for command in (
        ("work-pool", "create", "recsys", "--type", "process"),
        ("work-queue", "create", "train", "--pool", "recsys", "--limit", "1"),
        ("work-queue", "set-concurrency-limit", "default", "1", "--pool", "recsys"),
        ("--no-prompt", "deploy", "--all", "--prefect-file", file),
    ):
        done = prefect(env, *command)
        assert done.returncode == 0, done.stdout + done.stderr


def power_cut(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children at once: none sees the other go, as when a machine stops."""
    parent = psutil.Process(process.pid)
    parent.suspend()
    for each in parent.children(recursive=True):
        each.kill()
    parent.kill()


def default_interrupt() -> None:
    """Let a child heed Ctrl-C: what a script starts in its background ignores it, and so do we."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def terminate(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)  # nothing happens where it has ended


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()


def ctrl_c(process: subprocess.Popen[bytes]) -> None:
    """As a terminal does it: its children are told, too."""
    os.killpg(process.pid, signal.SIGINT)


def hang_up(process: subprocess.Popen[bytes]) -> None:
    """As a terminal does that is closed."""
    os.killpg(process.pid, signal.SIGHUP)


@contextmanager
def running(
    env: dict[str, str],
    home: Path,
    *arguments: str,
    stop: Callable[[subprocess.Popen[bytes]], None] = terminate,
    program: str = "recsys",
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, by default of `recsys`, that writes to a log; it is stopped at the end."""
    command = [str(Path(sys.executable).parent / program), *arguments]
    log = log_of(home, program)
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=home,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=default_interrupt,
        )
    try:
        yield process
    finally:
        stop(process)
        try:
            process.wait(150)
        finally:
            process.kill()
            print(log.read_text())


def servers_of(port: int) -> list[psutil.Process]:
    """The Prefect servers that `recsys serve` started for a port, whoever is their parent."""
    wanted = {"server", "start", str(port)}
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if wanted <= set(process.info["cmdline"] or [])
    ]


def in_use(pid: int, file: Path) -> bool:
    """Whether a process or one of its children has a file open."""
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended meanwhile
            if any(Path(opened.path) == file for opened in one.open_files()):
                return True
    return False


def log_of(home: Path, program: str = "recsys") -> Path:
    return home / f"{program}.log"


def until(found: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.4)  # each look costs CPU time, here and in the server that is asked
    return value


def with_password(env: dict[str, str]) -> dict[str, str]:
    file = Path(env.get("PREFECT_HOME", "")) / "recsys-serve" / "password"
    return {**env, "PREFECT_API_AUTH_STRING": file.read_text()} if file.is_file() else env


def api(
    env: dict[str, str], method: str, path: str, rows: list[Any] | None = None, **json: Any
) -> httpx.Response:
    """Ask Prefect's API, with its password; Prefect's command takes seconds for the same.

    What is sent is an object, or a list where ``rows`` are given.
    """
    user, _, password = with_password(env).get("PREFECT_API_AUTH_STRING", "").partition(":")
    address = f"{env['PREFECT_API_URL']}/{path}"
    ask = partial(
        _CLIENT.request, method, address, auth=(user, password), json=rows or json or None
    )
    try:
        return answered(ask)
    except httpx.ReadTimeout:
        if method != "GET":
            raise
        return answered(ask)  # a server that `recsys` did not start may stand still for a minute


def answered(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask again while the server's database is busy (503), as Prefect's own client does."""
    for _ in range(10):
        answer = ask()
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(1)
    return answer


def state_of(env: dict[str, str], flow_run: str) -> str:
    """The type of the state of a flow run, such as RUNNING."""
    answer = api(env, "GET", f"flow_runs/{flow_run}")
    return str(answer.raise_for_status().json()["state_type"])


def ask_for_run(env: dict[str, str], deployment: str, **parameters: Any) -> httpx.Response:
    """Ask for a run of a deployment, with parameters."""
    found = api(env, "GET", f"deployments/name/{deployment}").raise_for_status().json()
    return api(env, "POST", f"deployments/{found['id']}/create_flow_run", parameters=parameters)


def start_run(env: dict[str, str], deployment: str, **parameters: Any) -> str:
    """Start a run of a deployment; return its id."""
    return str(ask_for_run(env, deployment, **parameters).raise_for_status().json()["id"])


def cancel(env: dict[str, str], flow_run: str) -> None:
    """Cancel a flow run, as Prefect's command and page do."""
    state = {"type": "CANCELLING", "name": "Cancelling"}
    api(env, "POST", f"flow_runs/{flow_run}/set_state", state=state).raise_for_status()
