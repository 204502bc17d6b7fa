"""Commands and flows, killed at random moments, run again, and compared with an undisturbed run.

A round kills a first attempt, then the next one, which repairs what the first one left, and so on;
then it lets one end. So repairs are killed too, and there are more kills for each comparison.

Each attempt runs in a process forked from one that has imported everything. Its moment is a share
of the processor time that the undisturbed one took, so that a busy machine does not move it. A
command is typed again; a flow run is tried again as Prefect does it, under its own id.

All that a run writes to lies in one folder, its home: the lake, the sinks, the temporary folders.
On S3 that folder is one of a bucket that rclone serves, so that it is read as any other. It is
copied through the server, which would not see what is done behind its back.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
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
from recsys.lake.maintenance import remove_leftovers, remove_old_versions
from recsys.lake.row_counts import check_row_counts
from recsys.lake.schemas import TABLES
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import servers, templates
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
    "deliver": ["deliver"],
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
_LOOK_SECONDS = 0.5  # between two looks at the catalog while something runs
_SINK_TABLE = "shop.lists"


Start = Callable[[], "BaseProcess"]


@dataclass(frozen=True)
class Home:
    """A folder that holds all that a run writes to.

    Attributes:
        folder: of it.
        endpoint: the S3 server that serves the folder above as a bucket; empty for a local lake.
    """

    folder: Path
    endpoint: str = ""

    def copy(self, name: str) -> Home:
        """Return a copy beside it."""
        other = replace(self, folder=self.folder.with_name(name))
        if not self.endpoint:
            shutil.copytree(self.folder, other.folder)
            return other
        bucket, client = self.folder.parent.name, servers.client(self.endpoint)
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name != ".lock":
                client.upload_file(str(path), bucket, f"{name}/{path.relative_to(self.folder)}")
        return other

    @property
    def lake(self) -> Path:
        """The lake's folder; on S3, that of its objects."""
        return self.folder / "lake"

    @property
    def database(self) -> Path:
        """The sink that is a DuckDB file."""
        return self.folder / "sink.duckdb"

    @property
    def scratch(self) -> Path:
        """Where temporary folders are made."""
        return self.folder / "scratch"

    @property
    def writes(self) -> Path:
        """What a process tells of its files, see tests.long.power_cuts."""
        return self.folder / "writes"

    def environment(self, source: Path, api: str) -> dict[str, str]:
        """Return the variables of a command or a flow."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        root = str(self.folder)
        storage = {}
        if self.endpoint:
            root = f"s3://{self.folder.parent.name}/{self.folder.name}"
            storage = {"endpoint_url": self.endpoint, "single_writer": True}
        sinks = [
            {"name": "files", "to": f"{root}/files"},
            {"name": "database", "to": str(self.database), "table": _SINK_TABLE},
        ]
        return nights.environment(
            source,
            self.lake,
            api,
            TMPDIR=str(self.scratch),
            OMP_NUM_THREADS="1",
            TESTS_LOG=str(self.folder / "said.log"),
            WRITES_LOG=str(self.writes),
            RECSYS_LAKE=f"{root}/lake",
            RECSYS_S3=json.dumps(storage),
            RECSYS_SINKS=json.dumps(sinks),
            RECSYS_MAINTENANCE='{"retention": 0, "keep_lists": "P1D"}',
        )


@dataclass(frozen=True)
class World:
    """What a command or a flow starts with, and what it ends with when nobody kills it."""

    source: Path
    before: Home
    api: str
    begin: Callable[[dict[str, str]], Start]
    contents: dict[str, list[Any]]
    other_files: set[str]
    cpu: float
    names: int

    def environment(self, home: Home) -> dict[str, str]:
        """Return the variables of what is run in a home."""
        return home.environment(self.source, self.api)


@dataclass
class Round:
    """What happened in a round.

    Attributes:
        home: where it is.
        after_kill: called with what a killed process told of its files.
        moments: of its kills, as shares of the undisturbed run's processor time.
        looks: at the catalog, which each found whole.
        cpu: seconds of all attempts.
    """

    home: Home
    after_kill: Callable[[Path], None] | None = None
    moments: list[float] = field(default_factory=list)
    looks: int = 0
    cpu: float = 0.0


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


def run(process: BaseProcess, env: dict[str, str]) -> float:
    """Wait for the good end of a process; return the processor time that it took, in seconds."""
    process.join(300)
    assert process.exitcode == 0, nights.said(env).read_text()
    return float(nights.said(env).with_suffix(".cpu").read_text())


class Worlds:
    """The worlds of commands and flows, each made when it is first asked for, and shared.

    Args:
        folder: where they are; on S3, a bucket.
        api: Prefect's, for flows.
        endpoint: the S3 server, for lakes on S3.
    """

    def __init__(self, folder: Path, api: str, endpoint: str = "") -> None:
        self._folder, self._api, self._endpoint = folder, api, endpoint
        self._source = folder.with_name(f"{folder.name}.duckdb")
        self._homes: dict[str, Home] = {}
        self._worlds: dict[tuple[str, bool], World] = {}

    def home(self, name: str) -> Home:
        """Return a home of a name, which need not exist."""
        return Home(self._folder / name, self._endpoint)

    def of(self, work: str, *, is_flow: bool) -> World:
        """Return what a command or a flow starts with, and what it ends with undisturbed."""
        if (work, is_flow) not in self._worlds:
            self._worlds[work, is_flow] = self._make(work, is_flow)
        return self._worlds[work, is_flow]

    def _make(self, work: str, is_flow: bool) -> World:
        before = self._before(work)
        after = before.copy(f"after-{work}{'-flow' if is_flow else ''}")
        if is_flow:
            parameters = {name: _model(before, value) for name, value in FLOWS[work].items()}
            begin = partial(begin_flow_run, work, parameters)
        else:

            def begin(env: dict[str, str]) -> Start:
                return lambda: start(COMMANDS[work], env)

        after.writes.unlink(missing_ok=True)
        env = after.environment(self._source, self._api)
        cpu = run(begin(env)(), env)
        found = _contents(after), clean(after)
        names = after.writes.read_text() if after.writes.exists() else ""
        given = sum(line[0] in "MRL" for line in names.splitlines())
        return World(self._source, before, self._api, begin, *found, cpu, given)

    def _before(self, work: str) -> Home:
        """Return the home in which something starts: after a night, and a day of the source."""
        if work == "deliver":
            return self._undelivered()
        commands = _BEFORE.get(work, [])
        return self._after(commands) if commands else self._first_night()

    def _after(self, commands: list[list[str]]) -> Home:
        """Return a home after a night, a day of the source, and some commands."""
        name = f"before-{len(commands)}-{commands[-1][0]}"
        if name not in self._homes:
            home = self._first_night().copy(name)
            env = home.environment(self._source, self._api)
            for arguments in commands:
                run(start([_model(home, each) for each in arguments], env), env)
            self._homes[name] = home
        return self._homes[name]

    def _undelivered(self) -> Home:
        """Return a home whose sinks lack the newest lists."""
        name = "before-deliver"
        if name not in self._homes:
            home = self._first_night().copy(name)
            env = {**home.environment(self._source, self._api), "RECSYS_SINKS": "[]"}
            run(start(COMMANDS["backfill"], env), env)
            self._homes[name] = home
        return self._homes[name]

    def _first_night(self) -> Home:
        name = "before"
        if name not in self._homes:
            nights.make_source(self._source)
            home = self.home(name)
            env = home.environment(self._source, self._api)
            for arguments in (["ingest"], COMMANDS["train"], _LISTS):
                run(start(arguments, env), env)
            nights.next_day(self._source)
            self._homes[name] = home
        return self._homes[name]


def _model(home: Home, value: Any) -> Any:
    """Return a parameter; in place of "MODEL" a model of the lake that does not serve."""
    if value != "MODEL":
        return value
    rows = _open(home).rows(columns.MODELS, ["model_id", "status"]).to_pylist()
    return next(row["model_id"] for row in rows if row["status"] != "champion")


def _open(home: Home) -> Lake:
    """Open a lake as the folder that it is, on S3 too."""
    return Lake(str(home.lake), ObjectStorage())


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


def _contents(home: Home) -> dict[str, list[Any]]:
    """Return the rows of every table, and of the sinks, that two runs have in common."""
    found = contents(home.lake)
    if home.database.exists():
        with duckdb.connect(str(home.database)) as con:
            found["sink database"] = con.sql(f"select * from {_SINK_TABLE} order by all").fetchall()
    found["sink files"] = sorted(path.name for path in home.folder.glob("files/*/*"))
    found["sink lists"] = []
    for manifest in sorted(home.folder.glob("files/*/_manifest.json")):
        names = json.loads(manifest.read_text())["files"]
        files = [str(manifest.with_name(name)) for name in names]
        found["sink lists"] += duckdb.sql(
            f"select * from read_parquet({files}) order by all"
        ).fetchall()
    return found


def clean(home: Home) -> set[str]:
    """Remove what killed runs may leave until a maintenance; return the files outside of tables.

    A table then has the files of its log alone.
    """
    opened = _open(home)
    remove_leftovers(opened, dry_run=False)
    for table in TABLES:
        remove_old_versions(opened, table, timedelta(0), dry_run=False)
        stored = {str(path) for path in Path(opened.uri(table)).rglob("*.parquet*")}
        stored = {path for path in stored if "/_delta_log/" not in path}
        assert stored == set(opened.open(table).file_uris()), table
    files = (path.relative_to(home.lake) for path in home.lake.rglob("*") if path.is_file())
    return {str(path) for path in files if path.parts[0] not in TABLES}


def kill_and_run_again(
    world: World,
    name: str,
    seed: int,
    most_kills: int,
    after_kill: Callable[[Path], None] | None = None,
) -> Round:
    """Kill at the moments of a seed, run again, and see that nothing is amiss.

    Args:
        world: what is run, and how it ends undisturbed.
        name: of the home in which it is run.
        seed: of the moments.
        most_kills: in this round; an attempt that ends before its moment is the last one.
        after_kill: called with what the process told of its files. Then moments are among those at
            which it gives a file its name; see tests.long.power_cuts.
    """
    draw = random.Random(seed)  # noqa: S311 - moments, not secrets
    moment, done = draw.random(), Round(world.before.copy(name), after_kill)
    while not (again := _begin_and_kill(world, moment, done)):
        moment *= 0.8  # it was done before: the undisturbed one was slower
        name += "-again"
        done.home = world.before.copy(name)
    # What is tried again repairs first, and takes less time: it is killed sooner.
    while len(done.moments) < most_kills and _killed(world, again(), draw.random() ** 2, done):
        pass
    done.home.writes.with_suffix(".kill").unlink(missing_ok=True)
    if len(done.moments) == most_kills:
        done.cpu += run(again(), world.environment(done.home))
    _look(done)
    _compare(world, done)
    return done


def _begin_and_kill(world: World, moment: float, done: Round) -> Start | None:
    """Start and kill it; return how to run it again, or None where it had ended before."""
    done.home.writes.unlink(missing_ok=True)
    again = world.begin(world.environment(done.home))
    return again if _killed(world, again(), moment, done) else None


def _killed(world: World, process: BaseProcess, moment: float, done: Round) -> bool:
    """Kill a process at a moment; say whether that came before its end, which has to be good.

    Until then the catalog is looked at.
    """
    home = done.home
    if done.after_kill:  # it kills itself, right after it has given a file its name
        home.writes.with_suffix(".kill").write_text(str(1 + int(moment * world.names)))
    measured, looked = psutil.Process(process.pid), 0.0
    seconds = 0.0
    while process.is_alive():
        try:
            spent = measured.cpu_times()
        except psutil.NoSuchProcess:
            break
        seconds = spent.user + spent.system
        if not done.after_kill and seconds >= moment * world.cpu:
            process.kill()
            break
        if time.monotonic() - looked > _LOOK_SECONDS:
            _look(done)
            looked = time.monotonic()
        time.sleep(0.002)
    process.join()
    done.cpu += seconds
    is_killed = process.exitcode == -signal.SIGKILL
    if is_killed and done.after_kill and home.writes.exists():
        done.after_kill(home.writes)
    _look(done)
    if process.exitcode == 0:
        return False
    assert is_killed, nights.said(world.environment(home)).read_text()
    done.moments.append(round(moment, 4))
    return True


def _look(done: Round) -> None:
    """Look at the catalog: it answers, and its newest lists are whole and of one run."""
    with duckdb.connect(str(done.home.lake / "catalog.duckdb"), read_only=True) as con:
        assert con.execute(WHOLE_LISTS).fetchall() == [(True, 1, 1, nights.K)]
        if not done.home.endpoint:  # a view of files on S3 needs an extension
            con.execute("select count(*) from interactions, runs").fetchall()
    done.looks += 1


def _compare(world: World, done: Round) -> None:
    """See that all is as after the undisturbed run, and that nothing else is left."""
    home = done.home
    found = _contents(home)
    for table, rows in world.contents.items():
        place = f"{table}, killed at {done.moments} of its time"
        assert len(found[table]) == len(rows), place
        for after, undisturbed in zip(found[table], rows, strict=True):
            assert cells(after) == cells(undisturbed), place
    opened = _open(home)
    check_row_counts(opened)
    statuses = opened.rows(columns.RUNS, ["status"])["status"].to_pylist()
    assert "running" not in statuses
    assert statuses.count("crashed") <= len(done.moments)
    assert not list(home.scratch.glob("*")), "a killed run left temporary folders"
    assert clean(home) == world.other_files
    said = nights.said(world.environment(home)).read_text()
    assert "Traceback" not in said, said


def cells(row: Any) -> list[Any]:
    """Return the values of a row; nan is itself here."""
    values = row.values() if isinstance(row, dict) else row
    return ["nan" if value != value else value for value in values]
