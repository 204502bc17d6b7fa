"""Rounds of two commands at once on one lake on S3, which end as one after the other would.

Each runs in a process forked from one that has imported everything, with a lease of seconds. One of
them is stopped now and then, for longer than its lease, and goes on. What was refused is typed
again. A round is decided by its seed, but for the machine's own pace.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys import columns
from recsys.lake import lease, object_store
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import servers, templates
from tests.flows import nights
from tests.long import kills

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

ROOT, _BEFORE = "s3://lake/nightly/", "s3://lake/before/"
EXPIRES_AFTER = 2.0  # seconds
_RECOMMEND = ["recommend", "--as-of", "now", "--run-date", kills.DAYS[1]]
_NIGHT = [["ingest"], _RECOMMEND]
PAIRS: dict[str, tuple[list[list[str]], list[list[str]]]] = {
    "two nights": (_NIGHT, _NIGHT),
    "ingest beside recommend": ([["ingest"]], [_RECOMMEND]),
    "train beside ingest": ([kills.COMMANDS["train"]], [["ingest"]]),
    "maintain beside a night": ([["maintain"]], _NIGHT),
    "erase beside ingest": ([kills.COMMANDS["erase"]], [["ingest"]]),
}
"""Two writers, each of which types commands, one after the other."""


@dataclass
class World:
    """A prepared lake on S3, and what each pair may end with.

    Attributes:
        endpoint: of the S3 server.
        folder: for logs, temporary files and copies of the lake.
        ends: pair -> the contents after the first before the second writer, and the reverse.
    """

    endpoint: str
    folder: Path
    ends: dict[str, list[dict[str, list[Any]]]] = field(default_factory=dict)

    @property
    def storage(self) -> ObjectStorage:
        return ObjectStorage(endpoint_url=self.endpoint)

    def prepare(self) -> None:
        """Fill the lake with a day, a model and lists; the source has a new day."""
        servers.client(self.endpoint).create_bucket(Bucket="lake")
        source = self.folder / "source.duckdb"
        nights.make_source(source)
        lists = ["recommend", "--as-of", "now", "--run-date", kills.DAYS[0]]
        self.one_after_the_other([["ingest"], kills.COMMANDS["train"], lists])
        nights.next_day(source)
        self._copy(ROOT, _BEFORE)

    def restore(self) -> None:
        """Put the prepared lake back in its place."""
        stored, _ = object_store.listed(ROOT, self.storage)
        object_store.delete([one.uri for one in stored], self.storage)
        self._copy(_BEFORE, ROOT)

    def serial_ends(self, pair: str) -> list[dict[str, list[Any]]]:
        """Return what a lake holds after one writer and then the other one, in both orders."""
        if pair not in self.ends:
            self.ends[pair] = []
            first, second = PAIRS[pair]
            for commands in ([*first, *second], [*second, *first]):
                self.restore()
                self.one_after_the_other(commands)
                self.ends[pair].append(self.contents())
        return self.ends[pair]

    def one_after_the_other(self, commands: list[list[str]]) -> None:
        """Run commands that nobody disturbs."""
        process = self.start("alone", commands)
        process.join(300)
        assert process.exitcode == 0, self.said("alone")

    def start(self, name: str, commands: list[list[str]]) -> BaseProcess:
        """Start a writer."""
        scratch = self.folder / f"{name}.tmp"
        scratch.mkdir(exist_ok=True)
        env = nights.environment(
            self.folder / "source.duckdb",
            self.folder / name,
            "",
            OMP_NUM_THREADS="1",
            RECSYS_LAKE=ROOT.rstrip("/"),
            RECSYS_S3=json.dumps({"endpoint_url": self.endpoint}),
            TMPDIR=str(scratch),
        )
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["great_expectations", "flows.nightly", "torch._dynamo"])
        log = str(self.folder / f"{name}.log")
        process = context.Process(target=_write, args=(env, log, commands), daemon=True)
        process.start()
        return process

    def said(self, name: str) -> str:
        """Return what a writer printed."""
        return (self.folder / f"{name}.log").read_text()

    def contents(self) -> dict[str, list[Any]]:
        """Return what the tables hold."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        stored, _ = object_store.listed(ROOT, self.storage)
        with ThreadPoolExecutor(4) as pool:
            for one in stored:
                path = copy / one.uri.removeprefix(ROOT)
                pool.submit(object_store.download, one.uri, path, self.storage)
        return kills.contents(copy)

    def _copy(self, start: str, target: str) -> None:
        client = servers.client(self.endpoint)
        stored, _ = object_store.listed(start, self.storage)
        with ThreadPoolExecutor(4) as pool:
            for one in stored:
                bucket, key = object_store.split(one.uri)
                _, new = object_store.split(target + one.uri.removeprefix(start))
                source: Any = {"Bucket": bucket, "Key": key}
                pool.submit(client.copy_object, Bucket=bucket, Key=new, CopySource=source)


def _write(env: dict[str, str], log: str, commands: list[list[str]]) -> None:
    """Type the commands, in a process of its own."""
    tempfile.tempdir = env["TMPDIR"]
    os.environ |= env
    templates.keep_compiled()
    lease.EXPIRES_AFTER, lease.RENEW_EVERY = EXPIRES_AFTER, EXPIRES_AFTER / 4
    lease._POLL_SECONDS = 0.1
    with open(log, "a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    from flows.cli import app

    for arguments in commands:
        app(arguments, standalone_mode=False)


def two_at_once(world: World, pair: str, seed: int) -> int:
    """Do a round: two writers at once, each stopped now and then; return how many were refused.

    Raises:
        AssertionError: the lake holds what no serial order gives.
    """
    ends = world.serial_ends(pair)
    chance = random.Random(f"{pair} {seed}")  # noqa: S311 - moments, not secrets
    world.restore()
    writers = []
    for name, commands in zip(("first", "second"), PAIRS[pair], strict=True):
        writers.append(world.start(name, commands))
        time.sleep(chance.random())
    for _ in range(2):
        time.sleep(3 * chance.random())
        victim = chance.choice(writers)
        if victim.is_alive() and victim.pid:
            os.kill(victim.pid, signal.SIGSTOP)
            time.sleep(EXPIRES_AFTER * (0.5 + 1.5 * chance.random()))
            os.kill(victim.pid, signal.SIGCONT)
    refused = 0
    for name, writer in zip(("first", "second"), writers, strict=True):
        writer.join(300)
        if writer.exitcode != 0:  # as a person does, or Prefect
            said = world.said(name)
            assert "no longer has the lease" in said or "another run" in said, said
            refused += 1
    for writer, commands in zip(writers, PAIRS[pair], strict=True):
        if writer.exitcode != 0:
            world.one_after_the_other(commands)
    found = world.contents()
    differing = [
        [table for table in end if _cells(found[table]) != _cells(end[table])] for end in ends
    ]
    assert [] in differing, f"{pair}, seed {seed}: no serial order gives {differing}"
    lake = Lake(ROOT, world.storage)
    check_row_counts(lake)
    assert "running" not in lake.rows(columns.RUNS, ["status"])["status"].to_pylist()
    return refused


def _cells(rows: list[Any]) -> list[list[Any]]:
    return [kills.cells(row) for row in rows]
