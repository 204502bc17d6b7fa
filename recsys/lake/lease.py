"""The lease of a lake on S3: who may write, until when.

A lease is an object `.lease/NUMBER`, made with If-None-Match, so that one run alone can make the
next number. Its run writes it again while it lives; an empty one is given back. One that nobody has
written for a while has expired, by the clock of the store: its run is taken for dead.

A run that was stopped for longer than that, and goes on, finds that it has lost its lease before it
writes. The moment between the two is the commits' affair, see `recsys.lake.commits`.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from recsys.errors import ConfigurationError, LakeError, MissingError
from recsys.lake import object_store
from recsys.process import this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recsys.settings import ObjectStorage

EXPIRES_AFTER, RENEW_EVERY = 120.0, 30.0  # seconds
_POLL_SECONDS = 1.0
_KEPT = 10  # earlier leases, whose objects are still there
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Newest:
    """The newest lease of a lake: its number (0: there is none yet), and whether it is over."""

    number: int
    is_over: bool
    stored: tuple[str, ...]  # the addresses of all, oldest first


class Lease:
    """What a run on a lake on S3 has to have before it writes.

    Args:
        root: the lake's, ``s3://bucket/prefix``.
        storage: the S3 endpoint.
    """

    def __init__(self, root: str, storage: ObjectStorage) -> None:
        self._root, self._storage = root, storage
        self._number: int | None = None
        self._text = b""
        self._renewed = 0.0

    @contextmanager
    def held(self, holder: str, wait: Callable[[str], None]) -> Iterator[None]:
        """Have the lease while the block runs.

        Args:
            holder: the run, as others are told of it.
            wait: waits a while, given who has the lease; it raises when that took too long.

        Raises:
            ConfigurationError: the endpoint does not honour If-None-Match.
            LakeError: the store can't be asked, or what ``wait`` raises.
        """
        self._text = _text(holder)
        number = self._take(wait)
        ended = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(ended,), daemon=True)
        renewal.start()
        try:
            yield
        finally:
            ended.set()
            renewal.join()
            self._number = None
            try:
                object_store.put(self._uri(number), b"", self._storage)
            except LakeError as error:  # the next run waits until it expires
                _log.warning("%s", error)

    def require(self) -> None:
        """Make sure that the lease is still this run's, before a write.

        Raises:
            LakeError: the run was stopped for so long that its lease expired, and another run has
                begun.
        """
        if self._number is not None and _clock() - self._renewed > EXPIRES_AFTER / 2:
            self._write()

    def _take(self, wait: Callable[[str], None]) -> int:
        while True:
            newest = self._newest()
            if newest.is_over:
                number, started = newest.number + 1, _clock()
                is_ours = object_store.put(
                    self._uri(number), self._text, self._storage, once=True
                ) or self._is_written(number)
                if is_ours:
                    break
            else:
                wait(self._holder(newest.number))
                time.sleep(_POLL_SECONDS)
        # An endpoint that ignores the condition would let two runs have one lease.
        if number == 1 and object_store.put(self._uri(1), self._text, self._storage, once=True):
            raise ConfigurationError(
                f"the endpoint of {self._root} ignores If-None-Match, so that nothing keeps two "
                "runs from writing at once: set s3.single_writer = true, and make sure that one "
                "run at a time writes to this lake"
            )
        self._number, self._renewed = number, started
        if len(newest.stored) > _KEPT:
            object_store.delete(newest.stored, self._storage)
        return number

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(RENEW_EVERY):
            try:
                self._write()
            except LakeError as error:
                _log.warning("the lease of %s could not be renewed: %s", self._root, error)

    def _write(self) -> None:
        """Write the lease again, where it is still the newest one."""
        if self._number is None:
            return
        started = _clock()
        if self._newest().number != self._number:
            raise LakeError(
                f"this run no longer has the lease of {self._root}: it did not renew it for "
                f"{started - self._renewed:.0f} s, and another run began. Nothing more was "
                "written; run again",
                transient=True,
            )
        object_store.put(self._uri(self._number), self._text, self._storage)
        self._renewed = started

    def _newest(self) -> _Newest:
        stored, now = object_store.listed(f"{self._root}/.lease/", self._storage)
        if not stored:
            return _Newest(0, True, ())
        last = stored[-1]
        number = int(last.uri.rpartition("/")[2])
        age = (now - last.modified).total_seconds()
        return _Newest(
            number, last.size == 0 or age > EXPIRES_AFTER, tuple(each.uri for each in stored)
        )

    def _is_written(self, number: int) -> bool:
        """Say whether a lease is this run's: a try whose answer was lost may have made it."""
        try:
            return object_store.get(self._uri(number), self._storage) == self._text
        except MissingError:
            return False

    def _holder(self, number: int) -> str:
        try:
            told = json.loads(object_store.get(self._uri(number), self._storage))
            return f"{told['holder']}, started {told['started']} on {told['host']}"
        except (LakeError, ValueError, KeyError):  # given back meanwhile
            return "another run"

    def _uri(self, number: int) -> str:
        return f"{self._root}/.lease/{number:012d}"


def _text(holder: str) -> bytes:
    told = {
        "holder": holder,
        "host": this_process().partition(" ")[0],
        "started": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "process": this_process(),
        "token": secrets.token_hex(8),  # of this text and no other
    }
    return json.dumps(told).encode()


def _clock() -> float:
    """Return seconds that go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
