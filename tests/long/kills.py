"""Commands that are killed at a random moment, run again, and compared with an undisturbed run.

A command runs in a process forked from one that has imported everything. Its moment is a share of
the processor time that the undisturbed command took, so that a busy machine does not move it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psutil

from recsys import columns
from recsys.lake.maintenance import remove_leftovers
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import templates
from tests.flows import nights

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

DAYS = ("2026-01-02", "2026-01-03")
COMMANDS: dict[str, list[str]] = {
    "nightly": [],  # the flow, by nights.start_night
    "ingest": ["ingest"],
    "train": ["train", "--set", "seed=1"],
    "recommend": ["recommend", "--as-of", "now"],
    "maintain": ["maintain"],
    "erase": ["erase", "--user", "3", "--why", "asked for it"],
    "backfill": ["backfill", "--from", DAYS[0], "--to", "2026-01-05", "--as-of", "now"],
}
# One row a user and rank, of one run and day.
_WHOLE_LISTS = f"""
select count(*) = {nights.K} * count(distinct user_id), count(distinct run_id),
    count(distinct run_date), max(rank)
from latest_recommendations
"""


@dataclass(frozen=True)
class World:
    """What a command starts with, and what it ends with when nobody kills it."""

    command: str
    source: Path
    before: Path
    api: str
    contents: dict[str, list[Any]]
    cpu: float


def start(command: str, env: dict[str, str], day: str) -> BaseProcess:
    """Start a command in a process of its own; one that makes lists makes those of a day."""
    if command == "nightly":
        return nights.start_process(env, _night, (env, day))
    run_date = ["--run-date", day] if command == "recommend" else []
    return nights.start_process(env, _command, (env, [*COMMANDS[command], *run_date]))


def _night(env: dict[str, str], day: str) -> None:
    _prepare(env)
    nights._night(env, day)
    _write_cpu(env)


def _command(env: dict[str, str], arguments: list[str]) -> None:
    _prepare(env)
    os.environ |= env
    templates.keep_compiled()
    with nights.said(env).open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    from flows.cli import app

    app(arguments, standalone_mode=False)
    _write_cpu(env)


def _prepare(env: dict[str, str]) -> None:
    tempfile.tempdir = env["TMPDIR"]


def _write_cpu(env: dict[str, str]) -> None:
    nights.said(env).with_suffix(".cpu").write_text(str(time.process_time()))


def environment(source: Path, lake: Path, api: str) -> dict[str, str]:
    """Return the variables of a command; its temporary folders are beside the lake."""
    scratch = lake.with_suffix(".tmp")
    scratch.mkdir(exist_ok=True)
    keep = '{"retention": 0, "keep_lists": "P1D"}'
    return nights.environment(
        source, lake, api, TMPDIR=str(scratch), RECSYS_MAINTENANCE=keep, OMP_NUM_THREADS="1"
    )


def run(command: str, env: dict[str, str], day: str = DAYS[1]) -> float:
    """Run a command to its end; return the processor time that it took, in seconds."""
    process = start(command, env, day)
    process.join(300)
    assert process.exitcode == 0, nights.said(env).read_text()
    return float(nights.said(env).with_suffix(".cpu").read_text())


def make_world(command: str, folder: Path, api: str) -> World:
    """Prepare what a command starts with, and run it undisturbed."""
    source, before, lake = folder / "source.duckdb", folder / "before", folder / "lake"
    nights.make_source(source)
    for first in ("ingest", "train", "recommend"):
        run(first, environment(source, before, api), DAYS[0])
    nights.next_day(source)
    if command in ("train", "maintain", "erase"):
        run("backfill", environment(source, before, api))
    shutil.copytree(before, lake)
    cpu = run(command, environment(source, lake, api))
    return World(command, source, before, api, contents(lake), cpu)


def contents(lake: Path) -> dict[str, list[Any]]:
    """Return the rows of every table that two runs have in common."""
    found: dict[str, list[Any]] = {**nights.contents(lake)}
    opened = Lake(str(lake), ObjectStorage())
    days = opened.rows(columns.LIST_DAYS, ["run_date", "edition", "users", "rows"]).to_pylist()
    found[columns.LIST_DAYS] = sorted(days, key=repr)
    found[columns.ERASURES] = opened.rows(columns.ERASURES, ["why"]).to_pylist()
    promotions = opened.rows(columns.PROMOTIONS, ["model_id", "action", "why"]).to_pylist()
    found[columns.PROMOTIONS] = sorted(promotions, key=repr)
    return found


def kill_and_run_again(world: World, lake: Path, seed: int) -> None:
    """Kill a command at the moment of a seed, run it again, and see that nothing is amiss."""
    share = random.Random(seed).random()  # noqa: S311 - a moment, not a secret
    while not _is_killed(world, lake, share):
        share *= 0.8  # it was done before: the undisturbed one was slower
    env = environment(world.source, lake, world.api)
    _check_readers(lake)
    run(world.command, env)
    _check_readers(lake)
    found = contents(lake)
    for table, rows in world.contents.items():
        moment = f"{table}, killed at {share:.4f} of its time"
        assert len(found[table]) == len(rows), moment
        for after, undisturbed in zip(found[table], rows, strict=True):
            assert _cells(after) == _cells(undisturbed), moment
    opened = Lake(str(lake), ObjectStorage())
    check_row_counts(opened)
    statuses = opened.rows(columns.RUNS, ["status"])["status"].to_pylist()
    assert "running" not in statuses
    assert statuses.count("crashed") <= 1
    assert not list(Path(env["TMPDIR"]).glob("recsys*")), "a killed run left temporary folders"
    remove_leftovers(opened, dry_run=False)
    assert not remove_leftovers(opened, dry_run=True)


def _cells(row: Any) -> list[Any]:
    """Return the values of a row; nan is itself here."""
    values = row.values() if isinstance(row, dict) else row
    return ["nan" if value != value else value for value in values]


def _is_killed(world: World, lake: Path, share: float) -> bool:
    """Start the command and kill it; say whether it had not ended before."""
    shutil.rmtree(lake, ignore_errors=True)
    shutil.copytree(world.before, lake)
    process = start(world.command, environment(world.source, lake, world.api), DAYS[1])
    measured = psutil.Process(process.pid)
    while process.is_alive():
        try:
            spent = measured.cpu_times()
        except psutil.NoSuchProcess:
            break
        if spent.user + spent.system >= share * world.cpu:
            process.kill()
            break
        time.sleep(0.001)
    process.join()
    return process.exitcode == -signal.SIGKILL


def _check_readers(lake: Path) -> None:
    """The catalog answers, and its newest lists are whole and of one run."""
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as con:
        assert con.execute(_WHOLE_LISTS).fetchall() == [(True, 1, 1, nights.K)]
        con.execute("select count(*) from interactions, runs").fetchall()
