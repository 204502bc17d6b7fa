"""An S3 endpoint that fails as it is told to: for chosen requests, in a chosen way."""

from __future__ import annotations

import json
import re
import secrets
import socket
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args
from urllib.parse import unquote

from tests.s3_front import Front

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Fault = Literal["unavailable", "denied", "expired", "reset", "cut", "lost", "slow", "counted"]
"""503; 403; an expired token (400); a connection that is reset; an answer that ends half-way; a
request that is done and not answered; an answer that comes half a second late; and no fault at all,
to count the requests."""
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
        upstream: the address of the other one, which never fails.
    """

    endpoint: str
    control: Path
    upstream: str

    @contextmanager
    def failing(
        self,
        fault: Fault,
        requests: str = ".",
        every: int = 1,
        *,
        first: int = 0,
        most: int = 1_000_000,
        times: int = 0,
    ) -> Iterator[Callable[[], list[str]]]:
        """Fail requests whose ``METHOD /bucket/key?query`` matches while the block runs.

        Of these, ``every`` so manyth one fails, from the ``first`` on, ``most`` of them at most.
        With ``times``, each fails so many times before it is handed on; ``every`` counts nothing.
        What is given returns the requests that failed.
        """
        log = self._told(secrets.token_hex(4))
        plan = _Plan(fault, requests, every, first, most, times, log)
        arriving = self._told("arriving")
        Path(arriving).write_text(json.dumps(asdict(plan)))
        Path(arriving).rename(self.control)
        failed = Path(plan.log)
        try:
            yield lambda: failed.read_text().splitlines() if failed.exists() else []
        finally:
            self.control.unlink()

    def _told(self, name: str) -> str:
        return str(self.control.with_suffix(f".{name}"))


@dataclass(frozen=True)
class _Plan:
    """What the control file says; the fields as in `FaultyS3.failing`.

    Attributes:
        log: where the front writes what it has failed. Every plan has its own.
    """

    fault: Fault
    requests: str
    every: int
    first: int
    most: int
    times: int
    log: str


@contextmanager
def faulty_s3(folder: Path) -> Iterator[FaultyS3]:
    """Serve moto's S3 behind a front that fails on demand."""
    from tests import servers  # here: the front starts without what tests need

    front, control = servers.free_port(), folder / "faults.json"
    with servers.moto_s3(folder) as upstream:
        command = [sys.executable, "-m", "tests.faulty_s3", upstream.rsplit(":", 1)[1]]
        command += [str(front), str(control)]
        with servers.running(command, folder / "faulty.log", f"http://127.0.0.1:{front}") as told:
            yield FaultyS3(told, control, upstream)


class _Faulty(Front):
    """Hands requests on, or fails them as the control file says."""

    control: Path
    log = ""  # of the plan that is followed
    matching = count()
    tried: ClassVar[Counter[str]] = Counter()
    lock = threading.Lock()

    def _answer(self) -> None:
        fault = self._fault()
        if fault in (None, "counted"):
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
            plan = _Plan(**json.loads(self.control.read_text()))
        except FileNotFoundError:
            return None
        request = f"{self.command} {unquote(self.path)}"
        if not re.search(plan.requests, request):
            return None
        with self.lock:
            if plan.log != _Faulty.log:
                _Faulty.log, _Faulty.matching, _Faulty.tried = plan.log, count(), Counter()
            self.tried[request] += 1
            nth, other = divmod(next(self.matching) - plan.first, plan.every)
            if plan.times:
                passes = self.tried[request] % (plan.times + 1) == 0
            else:
                passes = bool(other) or not 0 <= nth < plan.most
            if passes:
                return None
            with open(plan.log, "a") as log:
                log.write(f"{request}\n")
        return plan.fault

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
