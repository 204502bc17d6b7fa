"""Whole commands on an S3 lake while its endpoint fails, run again, and compared.

Each command runs in this process, as a person types it. It may end well, or refuse in a sentence;
once the endpoint is well again, the command is typed again, and the lake is as an undisturbed
command leaves it.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from prefect import Task

from flows import cli, entrypoints
from recsys import columns
from recsys.catalog.query import query_catalog
from recsys.lake import object_store
from recsys.lake.row_counts import check_row_counts
from recsys.lake.schemas import TABLES
from recsys.lake.tables import Lake
from recsys.operations import runs
from recsys.process import this_process
from recsys.settings import ObjectStorage
from tests import servers
from tests.faulty_s3 import Fault, FaultyS3
from tests.flows import nights
from tests.long import kills

BUCKET, ROOT, SINK = "lake", "s3://lake/nightly", "out"
_LISTS = ["recommend", "--as-of", "now", "--run-date", kills.DAYS[0]]
_PROMOTE = ["models", "promote", "MODEL", "--why", "a test"]
# What is run in a lake of one night and a second day of events, before the commands of `STANDING`.
_PREPARED = [
    kills.COMMANDS["backfill"],
    ["train", "--set", "seed=2"],
    [*_LISTS, "--replace", "a test"],
]
# Commands that begin with a lake of one night, and find a second day of events.
GROWING: dict[str, list[str]] = {
    **{name: kills.COMMANDS[name] for name in ("ingest", "train", "recommend", "backfill")},
    "nightly": ["nightly", "--train", "always", "--run-date", kills.DAYS[1], "--as-of", "now"],
}
# Commands that begin with a lake that has lists of several days, editions, and a second model.
STANDING: dict[str, list[str]] = {
    **{name: kills.COMMANDS[name] for name in ("maintain", "erase")},
    "deliver": ["deliver"],
    "promote": _PROMOTE,
    "rollback": ["models", "rollback", "--why", "a test"],
    "lists rollback": [
        *("lists", "rollback", "--run-date", kills.DAYS[0], "--why", "a test", "--to", "1"),
    ],
    "report": ["report"],
    "models": ["models"],
    "sql": ["sql", "select count(*) from interactions, latest_recommendations"],
    "explain": ["explain", "--user", "4"],
    "compare": ["compare", *kills.DAYS],
}
COMMANDS = GROWING | STANDING
READERS = ("models", "sql", "explain", "compare")
TYPED = 10
"""How often a reader is typed while the endpoint fails: it makes few requests."""

_EVER = 1_000_000
_COMMITS = r"PUT .*_delta_log/\d+\.json"
# What a person is told of a store: an object, and what to do. And what no person can read.
_OBJECT = re.compile(rf"s3://{BUCKET}/\w+")
_REMEDY = re.compile(
    r"run (it |this )?again|check s3\.endpoint_url|may not do that|log in again|close it there"
)
UNFIT = re.compile(
    r"Traceback|\^\^|\bdisk\b|Generic S3|http://|<Error>|Error performing|LINE \d|Exception"
)


@dataclass(frozen=True)
class Plan:
    """How an endpoint fails, see `FaultyS3.failing`; a seed says from which request on."""

    fault: Fault
    requests: str = "."
    every: int = 1
    most: int = _EVER
    times: int = 0

    def __str__(self) -> str:
        """Name the plan as a part of a test's name."""
        of = {".": "", _COMMITS: " commit"}.get(self.requests, f" {self.requests}")
        share = f"each {self.every}" if self.most == _EVER else f"burst {self.most}"
        return f"{self.fault}{of} {f'{self.times} times' if self.times else share}"


PLANS = [  # of every command
    Plan("unavailable", times=2),
    Plan("unavailable", every=5),
    Plan("unavailable", most=30),
    Plan("lost", "PUT|POST|DELETE", every=2),
    Plan("denied", most=40),
]
OTHERS = [  # of every third command, by turns
    Plan("reset", times=2),
    Plan("reset", most=30),
    Plan("cut", "GET", every=3),
    Plan("lost", _COMMITS),
    Plan("expired", most=40),
    Plan("denied", _COMMITS, most=1),
    Plan("slow", every=25),
]
SCENARIOS = [(work, plan) for plan in PLANS for work in COMMANDS] + [
    (work, plan)
    for place, plan in enumerate(OTHERS)
    for first, work in enumerate(COMMANDS)
    if (first + place) % 3 == 0
]


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    text: str

    @property
    def refusal(self) -> str:
        """The sentence in which it refused; none where it ended, with a rejected model too."""
        last = self.text[self.text.rfind("\nrecsys: ") + 1 :]
        return last if self.code and last.startswith("recsys: ") else ""


def run_command(arguments: list[str], env: dict[str, str], temporary: Path) -> Said:
    """Run a command as it is typed; an error that it does not explain is a traceback.

    It is like a process of its own: its S3 client counts its own retries, and its row in `runs` is
    of a process that has ended when the next command looks.
    """
    said, code = io.StringIO(), 70
    object_store._make_client.cache_clear()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setattr(sys, "argv", ["recsys", *arguments])
        patch.setattr(tempfile, "tempdir", str(temporary))
        patch.setattr(runs, "this_process", lambda: f"{this_process()}0")
        for name, value in env.items():
            patch.setenv(name, value)
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Exception:
            traceback.print_exc(file=said)
    return Said(code, said.getvalue())


@dataclass(frozen=True)
class Undisturbed:
    """What a command ends with where nothing fails, and how many requests it makes."""

    said: Said
    contents: dict[str, list[Any]]
    requests: int


@dataclass
class World:
    """A bucket behind an endpoint that fails, and what commands begin and end with.

    Attributes:
        s3: the endpoint.
        folder: where commands keep temporary files.
        env: the variables of commands.
        states: state -> key -> object of the bucket.
        known: ETag -> object that was read before.
        undisturbed: command -> how it ends.
        model: the model of the standing state that does not serve.
    """

    s3: FaultyS3
    folder: Path
    env: dict[str, str]
    states: dict[str, dict[str, bytes]] = field(default_factory=dict)
    known: dict[str, bytes] = field(default_factory=dict)
    undisturbed: dict[str, Undisturbed] = field(default_factory=dict)
    model: str = ""

    def lake(self) -> Lake:
        return Lake(ROOT, ObjectStorage(endpoint_url=self.s3.upstream, region="us-east-1"))

    def type(self, work: str) -> Said:
        """Run a command of `COMMANDS`."""
        return self.run(COMMANDS[work])

    def run(self, arguments: list[str]) -> Said:
        words = [self.model if word == "MODEL" else word for word in arguments]
        return run_command(words, self.env, self.folder)

    def prepare(self, arguments: list[str]) -> None:
        """Run a command that ends well, and note the model that does not serve then."""
        said = self.run(arguments)
        assert said.code == 0 or "rejected" in said.text, said.text
        rows = self.lake().rows(columns.MODELS, ["model_id", "status"]).to_pylist()
        self.model = next((row["model_id"] for row in rows if row["status"] != "champion"), "")

    def etags(self) -> dict[str, str]:
        pages = servers.client(self.s3.upstream).get_paginator("list_objects_v2")
        return {
            entry["Key"]: entry["ETag"].strip('"')
            for page in pages.paginate(Bucket=BUCKET)
            for entry in page.get("Contents", [])
        }

    def objects(self, wanted: str = "") -> dict[str, bytes]:
        """Return the objects whose keys match; one that has not changed is not read again."""
        store = servers.client(self.s3.upstream)
        stored = {key: etag for key, etag in self.etags().items() if re.search(wanted, key)}
        for key, etag in stored.items():
            if etag not in self.known:
                self.known[etag] = store.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return {key: self.known[etag] for key, etag in stored.items()}

    def restore(self, work: str) -> None:
        """Bring the bucket to what a command begins with."""
        state = self.states["standing" if work in STANDING else "growing"]
        store, stored = servers.client(self.s3.upstream), self.etags()
        for key in stored.keys() - state:
            store.delete_object(Bucket=BUCKET, Key=key)
        for key, content in state.items():
            if stored.get(key) != hashlib.md5(content).hexdigest():  # noqa: S324 - an ETag
                store.put_object(Bucket=BUCKET, Key=key, Body=content)

    def end_leases(self) -> None:
        """Let the time be over after which a lease that was not given back expires."""
        for key in self.etags():
            if "/.lease/" in key:
                servers.client(self.s3.upstream).put_object(Bucket=BUCKET, Key=key, Body=b"")

    def contents(self) -> dict[str, list[Any]]:
        """Return the rows of every table and of the sink, less what differs between two runs.

        They are read from a copy on disk, which makes no requests.
        """
        copy = self.folder / "copy"
        for key, content in self.objects(rf"^({SINK}|nightly/({'|'.join(TABLES)}))/").items():
            (copy / key).parent.mkdir(parents=True, exist_ok=True)
            (copy / key).write_bytes(content)
        found = kills.contents(copy / "nightly")
        lake = Lake(str(copy / "nightly"), ObjectStorage())
        check_row_counts(lake)
        found["running"] = [
            row for row in lake.rows(columns.RUNS).to_pylist() if row["status"] == "running"
        ]
        found["sink"] = _delivered(copy / SINK)
        shutil.rmtree(copy)
        return found


@contextmanager
def make_world(s3: FaultyS3, folder: Path, api: str) -> Iterator[World]:
    """Prepare what commands begin with, and let them try again without pauses."""
    env = nights.environment(Path("unused"), Path("unused"), api)
    env = {name: value for name, value in env.items() if name.startswith(("RECSYS_", "PREFECT_"))}
    env |= {
        "RECSYS_LAKE": ROOT,
        "RECSYS_S3": json.dumps({"endpoint_url": s3.endpoint, "region": "us-east-1"}),
        "RECSYS_SOURCE": json.dumps({"uri": f"s3://{BUCKET}/shop/*.parquet"}),
        "RECSYS_SINKS": json.dumps([{"name": "out", "to": f"s3://{BUCKET}/{SINK}"}]),
        "RECSYS_MAINTENANCE": '{"retention": 0, "keep_lists": "P1D"}',
    }
    temporary = folder / "temporary"
    temporary.mkdir()
    world = World(s3, temporary, env)
    servers.client(s3.upstream).create_bucket(Bucket=BUCKET)
    with pytest.MonkeyPatch.context() as patch:
        servers.use_credentials(patch)
        _try_again_at_once(patch)
        _prepare(world, folder / "source.duckdb")
        yield world


def _prepare(world: World, source: Path) -> None:
    nights.make_source(source)
    _put_events(world, source, "1", "")
    for arguments in (["ingest"], kills.COMMANDS["train"], _PROMOTE, _LISTS):
        world.prepare(arguments)
    nights.next_day(source)
    _put_events(world, source, "2", "where timestamp is null or timestamp > '2026-01-02'")
    world.states["growing"] = world.objects()
    for arguments in (["ingest"], *_PREPARED):
        world.prepare(arguments)
    world.states["standing"] = world.objects()


def disturb(world: World, work: str, plan: Plan, seed: int) -> int:
    """Run a command while the endpoint fails, then again; return how many requests failed."""
    undisturbed = _undisturbed(world, work)
    world.restore(work)
    draw = random.Random(f"{work} {plan} {seed}")  # noqa: S311 - a place, not a secret
    first = draw.randrange(2 * plan.every if plan.most == _EVER else undisturbed.requests)
    if plan.requests != ".":
        first %= 4
    options = {"every": plan.every, "first": first, "most": plan.most, "times": plan.times}
    with world.s3.failing(plan.fault, plan.requests, **options) as failed:
        all_said = [world.type(work) for _ in range(TYPED if work in READERS else 1)]
        faults = failed()
    for said in all_said:
        case = f"{work}, {plan}, from request {first} on, {len(faults)} failed:\n{said.text}"
        _check_said(said, undisturbed.said, case)
    if work in READERS:
        return len(faults)
    world.end_leases()
    _check_readers(world, case)
    again = world.type(work)
    case = f"{case}\nand again, exit code {again.code}:\n{again.text}"
    if said.refusal:
        assert (again.code, again.refusal) == (undisturbed.said.code, ""), case
    assert not UNFIT.search(again.text), case
    _check_readers(world, case)
    found = world.contents()
    check_equal(found, undisturbed.contents, case)
    assert not list(world.folder.glob("recsys*")), case
    return len(faults)


def check_equal(found: dict[str, list[Any]], wanted: dict[str, list[Any]], case: str) -> None:
    """See that all tables hold the rows that they hold where nothing failed."""
    for table, rows in wanted.items():
        assert len(found[table]) == len(rows), f"{table}, {case}"
        for row, undisturbed in zip(found[table], rows, strict=True):
            told = f"{table}: {row} for {undisturbed}, {case}"
            assert kills.cells(row) == kills.cells(undisturbed), told


def _undisturbed(world: World, work: str) -> Undisturbed:
    """Return how a command ends where nothing fails; it is run where that is not known yet."""
    if work not in world.undisturbed:
        world.restore(work)
        with world.s3.failing("counted") as counted:
            said = world.type(work)
            requests = len(counted())
        assert said.code == 0 or "rejected" in said.text, said.text
        assert not UNFIT.search(said.text), said.text
        world.undisturbed[work] = Undisturbed(said, world.contents(), requests)
    return world.undisturbed[work]


def _check_said(said: Said, undisturbed: Said, case: str) -> None:
    """It ended well, or refused by a sentence that names an object and what to do."""
    assert not UNFIT.search(said.text), case
    if said.refusal:
        assert said.code == 1, case
        assert _OBJECT.search(said.refusal), case
        assert _REMEDY.search(said.refusal), case
    else:
        assert said.code == undisturbed.code, case


def _check_readers(world: World, case: str) -> None:
    """The catalog answers, and its newest lists are whole and of one run."""
    (lists,) = query_catalog(world.lake(), kills.WHOLE_LISTS).to_pylist()
    assert list(lists.values()) == [True, 1, 1, nights.K], case


def _delivered(folder: Path) -> list[Any]:
    """Return the rows of a sink of Parquet files, by its manifests; each file is in one."""
    manifests = [json.loads(path.read_text()) for path in folder.glob("*/_manifest.json")]
    named = {name for manifest in manifests for name in manifest["files"]}
    files = list(folder.glob("*/*.parquet"))
    assert {file.name for file in files} == named
    if not files:
        return []
    with duckdb.connect() as con:
        selected = con.from_parquet(list(map(str, files)), hive_partitioning=True)
        return sorted(selected.select("run_date, user_id, rank, item_id, score").fetchall())


def _put_events(world: World, source: Path, name: str, where: str) -> None:
    path = source.with_name(f"{name}.parquet")
    with duckdb.connect(str(source), read_only=True) as con:
        con.execute(f"copy (from events {where}) to '{path}'")
    servers.client(world.s3.upstream).upload_file(str(path), BUCKET, f"shop/{path.name}")


def _try_again_at_once(patch: pytest.MonkeyPatch) -> None:
    """The pauses between tries are not what is tested."""
    patch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))
    options = ObjectStorage.delta_options
    pauses = dict.fromkeys(("init_backoff", "max_backoff"), "10ms")
    quick = {f"backoff_config.{name}": pause for name, pause in pauses.items()}
    patch.setattr(ObjectStorage, "delta_options", lambda self: {**options(self), **quick})
    assert entrypoints.__all__  # which imports all flows
    modules = [module for name, module in sys.modules.items() if name.startswith("flows.")]
    for task in (each for module in modules for each in vars(module).values()):
        if isinstance(task, Task) and task.retries:
            patch.setattr(task, "retry_delay_seconds", [0.0] * task.retries)
