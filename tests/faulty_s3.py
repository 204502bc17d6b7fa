"""An S3 endpoint that fails as it is told to: for chosen requests, in a chosen way."""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import unquote

from tests.s3_front import Front

if TYPE_CHECKING:
    from collections.abc import Iterator

Fault = Literal["unavailable", "denied", "expired", "reset", "cut", "lost", "slow"]
"""503; 403; an expired token (400); a connection that is reset; an answer that ends half-way; a
request that is done and not answered; an answer that comes half a second late."""
FAULTS: tuple[Fault, ...] = get_args(Fault)[:5]
LATE = 0.5  # seconds

_ANSWERS = {
    "unavailable": (503, "ServiceUnavailable"),
    "denied": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
}


@dataclass(frozen=True)
class FaultyS3:
    """An endpoint in front of another one.

    Attributes:
        endpoint: its address.
        control: the file that tells it how to fail; none while all goes well.
    """

    endpoint: str
    control: Path

    @contextmanager
    def failing(self, fault: Fault, requests: str, every: int = 1) -> Iterator[None]:
        """Fail requests whose ``METHOD /bucket/key?query`` matches while the block runs.

        Of these, ``every`` so manyth one fails.
        """
        arriving = self.control.with_suffix(".arriving")
        arriving.write_text(json.dumps([fault, requests, every]))
        arriving.rename(self.control)
        try:
            yield
        finally:
            self.control.unlink()


@contextmanager
def faulty_s3(folder: Path) -> Iterator[FaultyS3]:
    """Serve moto's S3 behind a front that fails on demand."""
    from tests import servers  # here: the front starts without what tests need

    front, control = servers.free_port(), folder / "faults.json"
    with servers.moto_s3(folder) as upstream:
        command = [sys.executable, "-m", "tests.faulty_s3", upstream.rsplit(":", 1)[1]]
        command += [str(front), str(control)]
        with servers.running(command, folder / "faulty.log", f"http://127.0.0.1:{front}") as told:
            yield FaultyS3(told, control)


class _Faulty(Front):
    """Hands requests on, or fails them as the control file says."""

    control: Path
    matching = count()

    def _answer(self) -> None:
        fault = self._fault()
        if fault is None:
            self.forward()
        elif fault == "slow":
            time.sleep(LATE)
            self.forward()
        elif fault == "lost":
            self.hand_on()
            self._close(reset=True)
        elif fault == "reset":
            self._close(reset=True)
        elif fault == "cut":
            self.forward(part=0.5)
            self._close(reset=False)
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, code = _ANSWERS[fault]
            body = f"<Error><Code>{code}</Code><Message>told to</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def _fault(self) -> str | None:
        try:
            fault, requests, every = json.loads(self.control.read_text())
        except FileNotFoundError:
            return None
        if not re.search(requests, f"{self.command} {unquote(self.path)}"):
            return None
        return fault if next(self.matching) % every == 0 else None

    def _close(self, *, reset: bool) -> None:
        """End the connection, with an end of what was sent or with a reset."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()  # in fact when the handler lets go of its files

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - http.server's names


if __name__ == "__main__":
    _Faulty.upstream, _Faulty.control = int(sys.argv[1]), Path(sys.argv[3])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), _Faulty).serve_forever()
