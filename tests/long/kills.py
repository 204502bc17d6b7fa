"""Commands and flows, killed at a random moment, run again, and compared with an undisturbed run.

Each runs in a process forked from one that has imported everything. Its moment is a share of the
processor time that the undisturbed one took, so that a busy machine does not move it. A command is
typed again; a flow run is tried again as Prefect does it, under its own id.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import duckdb
import psutil
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from flows import entrypoints
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
    "ingest": ["ingest"],
    "train": ["train", "--set", "seed=1"],
    "recommend": ["recommend", "--as-of", "now", "--run-date", DAYS[1]],
    "maintain": ["maintain"],
    "erase": ["erase", "--user", "3", "--why", "asked for it"],
    "backfill": ["backfill", "--from", DAYS[0], "--to", "2026-01-05", "--as-of", "now"],
}
# Every flow that writes, and its parameters. "MODEL" stands for a model that does not serve.
FLOWS: dict[str, dict[str, Any]] = {
    "nightly": {"train": "always", "run_date": DAYS[1], "as_of": "now"},
    "ingest": {},
    "train": {"seed": 1},
    "recommend": {"run_date": DAYS[1], "as_of": "now"},
    "maintain": {},
    "erase": {"user": "3", "why": "asked for it"},
    "backfill": {"first": DAYS[0], "last": "2026-01-05", "as_of": "now"},
    "lists-rollback": {"run_date": DAYS[0], "why": "a bad night"},
    "promote": {"model_id": "MODEL", "why": "a person knows better"},
    "rollback": {"why": "a person knows better"},
}
_LISTS = ["recommend", "--as-of", "now", "--run-date", DAYS[0]]
_PROMOTE = ["models", "promote", "MODEL", "--why", "a test"]
# What is run before, beside a night's commands. The gate has refused the night's model.
_BEFORE: dict[str, list[list[str]]] = {
    "train": [COMMANDS["backfill"]],
    "maintain": [COMMANDS["backfill"]],
    "erase": [COMMANDS["backfill"]],
    "lists-rollback": [_PROMOTE, [*_LISTS, "--replace", "a model serves now"]],
    "rollback": [_PROMOTE, ["train", "--set", "seed=2"], _PROMOTE],
}
# One row a user and rank, of one run and day.
WHOLE_LISTS = f"""
select count(*) = {nights.K} * count(distinct user_id), count(distinct run_id),
    count(distinct run_date), max(rank)
from latest_recommendations
"""


Start = Callable[[], "BaseProcess"]


@dataclass(frozen=True)
class World:
    """What a command or a flow starts with, and what it ends with when nobody kills it."""

    source: Path
    before: Path
    api: str
    begin: Callable[[dict[str, str]], Start]
    contents: dict[str, list[Any]]
    cpu: float


def start(arguments: list[str], env: dict[str, str]) -> BaseProcess:
    """Start a command in a process of its own."""
    return nights.start_process(env, _command, (env, arguments))


def _command(env: dict[str, str], arguments: list[str]) -> None:
    _prepare(env)
    from flows.cli import app

    app(arguments, standalone_mode=False)
    _write_cpu(env)


def flow_names() -> dict[str, Any]:
    """Return every flow that a deployment or a command may run, by its name."""
    return {each.name: each for name in entrypoints.__all__ if (each := getattr(entrypoints, name))}


def begin_flow_run(flow: str, parameters: dict[str, Any], env: dict[str, str]) -> Start:
    """Make a flow run; each call of what is returned starts it, as a retry does, under its id."""
    with (
        temporary_settings({PREFECT_API_URL: env["PREFECT_API_URL"]}),
        get_client(sync_client=True) as client,
    ):
        made = client.create_flow_run(flow_names()[flow], parameters=parameters)
    return lambda: nights.start_process(env, _flow_run, (env, flow, parameters, str(made.id)))


def _flow_run(env: dict[str, str], flow: str, parameters: dict[str, Any], run_id: str) -> None:
    _prepare(env)
    with temporary_settings({PREFECT_API_URL: env["PREFECT_API_URL"]}):
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(run_id), Scheduled(), force=True)
            made = client.read_flow_run(UUID(run_id))
        state = run_flow(
            flow_names()[flow], flow_run=made, parameters=parameters, return_type="state"
        )
    assert state.is_completed() or state.name == "Rejected", state
    _write_cpu(env)


def _prepare(env: dict[str, str]) -> None:
    tempfile.tempdir = env["TMPDIR"]
    os.environ |= env
    templates.keep_compiled()
    with nights.said(env).open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


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


def run(process: BaseProcess, env: dict[str, str]) -> float:
    """Wait for the good end of a process; return the processor time that it took, in seconds."""
    process.join(300)
    assert process.exitcode == 0, nights.said(env).read_text()
    return float(nights.said(env).with_suffix(".cpu").read_text())


def make_world(work: str, is_flow: bool, folder: Path, api: str) -> World:
    """Prepare what a command or a flow starts with, and run it undisturbed."""
    source, before, lake = folder / "source.duckdb", folder / "before", folder / "lake"
    nights.make_source(source)
    env = environment(source, before, api)
    for arguments in (["ingest"], COMMANDS["train"], _LISTS):
        run(start(arguments, env), env)
    nights.next_day(source)
    for arguments in _BEFORE.get(work, []):
        run(start([_model(before, each) for each in arguments], env), env)
    if is_flow:
        parameters = {name: _model(before, value) for name, value in FLOWS[work].items()}
        begin = partial(begin_flow_run, work, parameters)
    else:

        def begin(env: dict[str, str]) -> Start:
            return lambda: start(COMMANDS[work], env)

    shutil.copytree(before, lake)
    env = environment(source, lake, api)
    cpu = run(begin(env)(), env)
    return World(source, before, api, begin, contents(lake), cpu)


def _model(lake: Path, value: Any) -> Any:
    """Return a parameter; in place of "MODEL" a model of the lake that does not serve."""
    if value != "MODEL":
        return value
    rows = Lake(str(lake), ObjectStorage()).rows(columns.MODELS, ["model_id", "status"]).to_pylist()
    return next(row["model_id"] for row in rows if row["status"] != "champion")


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
    """Kill at the moment of a seed, run again, and see that nothing is amiss."""
    share = random.Random(seed).random()  # noqa: S311 - a moment, not a secret
    while not (again := _killed(world, lake, share)):
        share *= 0.8  # it was done before: the undisturbed one was slower
    env = environment(world.source, lake, world.api)
    _check_readers(lake)
    run(again(), env)
    _check_readers(lake)
    found = contents(lake)
    for table, rows in world.contents.items():
        moment = f"{table}, killed at {share:.4f} of its time"
        assert len(found[table]) == len(rows), moment
        for after, undisturbed in zip(found[table], rows, strict=True):
            assert cells(after) == cells(undisturbed), moment
    opened = Lake(str(lake), ObjectStorage())
    check_row_counts(opened)
    statuses = opened.rows(columns.RUNS, ["status"])["status"].to_pylist()
    assert "running" not in statuses
    assert statuses.count("crashed") <= 1
    assert not list(Path(env["TMPDIR"]).glob("recsys*")), "a killed run left temporary folders"
    remove_leftovers(opened, dry_run=False)
    assert not remove_leftovers(opened, dry_run=True)


def cells(row: Any) -> list[Any]:
    """Return the values of a row; nan is itself here."""
    values = row.values() if isinstance(row, dict) else row
    return ["nan" if value != value else value for value in values]


def _killed(world: World, lake: Path, share: float) -> Start | None:
    """Start and kill it; return how to run it again, or None where it had ended before."""
    shutil.rmtree(lake, ignore_errors=True)
    shutil.copytree(world.before, lake)
    again = world.begin(environment(world.source, lake, world.api))
    process = again()
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
    return again if process.exitcode == -signal.SIGKILL else None


def _check_readers(lake: Path) -> None:
    """The catalog answers, and its newest lists are whole and of one run."""
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as con:
        assert con.execute(WHOLE_LISTS).fetchall() == [(True, 1, 1, nights.K)]
        con.execute("select count(*) from interactions, runs").fetchall()
