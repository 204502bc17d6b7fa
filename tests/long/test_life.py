"""`recsys serve`, left alone beside a source that grows day by day; only the clock is moved.

Everything is real: the command, its Prefect server with the schedules of prefect.yaml, each run a
process, the default policy of training, a receiver of webhooks. When nothing is due any more, the
clock of all of them goes to the next night, to the weekly upkeep, or to six o'clock, when
somebody looks for the lists.

What it does not show: a machine under load or short of memory, a store other than a folder, a lake
of real size, upkeep by the times of files, which stay the machine's, and lists older than
`maintenance.keep_lists`. `make bench-year` has a whole year, without Prefect.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import columns
from recsys.catalog.query import query_catalog
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.benchmarks.year import START, Event, Shop
from tests.flows.processes import api, kill, log_of, running, servers_of, until, with_password
from tests.flows.test_server import receiver
from tests.long.clock import COMPILER, Clock
from tests.servers import free_port

USERS, ITEMS, K = 80, 40, 5
NIGHTS = range(40, 55)  # days of the shop; those before are its history
BROKEN = 44  # the batch of this night is refused
KILLED = 49  # `recsys serve` is killed within this night,
BACK = 51  # and started again at noon of this day

SETTINGS = f"""
lake = "./lake"
device = "cpu"
threads = 1
[source]
uri = "source/*.parquet"
[recommending]
k = {K}
[training]
epochs = 15
overrides = {{ width = 16, blocks = 1, max_length = 20 }}
"""


def day(number: int) -> date:
    return START + timedelta(days=number)


def moment(number: int, hour: int) -> datetime:
    """Return a second after an hour of a day."""
    return datetime.combine(day(number), time(hour, 0, 1), UTC)


@dataclass
class Life:
    """A shop's folder and its `recsys serve`, and every list as it was when it was served."""

    folder: Path
    env: dict[str, str]  # of whoever uses the server
    port: int
    clock: Clock
    serve: ExitStack = field(default_factory=ExitStack)  # kills it
    rows: set[Event] = field(default_factory=set)  # of the source
    served: dict[date, list[dict[str, Any]]] = field(default_factory=dict)
    files: list[tuple[int, int]] = field(default_factory=list)  # before and after each upkeep

    @property
    def lake(self) -> Lake:
        return Lake(str(self.folder / "lake"), ObjectStorage())

    def query(self, statement: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = query_catalog(self.lake, statement, {}).to_pylist()
        return rows

    def start(self) -> None:
        """Start `recsys serve`."""
        own = {name: value for name, value in self.env.items() if name != "PREFECT_API_URL"}
        serve = running(own, self.folder, "serve", "--port", str(self.port), stop=kill)
        self.serve.enter_context(serve)
        until(lambda: "watch/daily" in log_of(self.folder).read_text(), 300)

    def runs(self, *states: str) -> int:
        """Count the runs that are due and in one of these states."""
        due = {"before_": self.clock.now().isoformat()}
        runs = {"state": {"type": {"any_": states}}, "expected_start_time": due}
        answer = api(self.env, "POST", "flow_runs/count", flow_runs=runs)
        return int(answer.raise_for_status().json())

    def until_idle(self) -> None:
        until(lambda: not self.runs("SCHEDULED", "PENDING", "RUNNING", "CANCELLING"), 500)

    def go_to(self, number: int, hour: int) -> None:
        """Move the clock to a time when a run is due, and wait until all is done."""
        self.clock.move(moment(number, hour))
        self.until_idle()

    def put(self, number: int, events: list[Event], broken: bool = False) -> None:
        """Let a day's events come to the source; in a broken file most have no user."""
        users, items, times = map(list, zip(*events, strict=True))
        users = [None if broken and place % 3 else user for place, user in enumerate(users)]
        table = {
            columns.USER_ID: pa.array(users, pa.int64()),
            columns.ITEM_ID: pa.array(items, pa.int64()),
            columns.TIMESTAMP: pa.array(times, pa.timestamp("us", "UTC")),
        }
        pq.write_table(pa.table(table), self.folder / "source" / f"{number:03}.parquet")
        if not broken:
            self.rows |= set(events)

    def remember(self, number: int) -> None:
        """Copy the lists that are served now: they are those of a day."""
        rows = self.query("select * from latest_recommendations order by user_id, rank")
        assert {row["run_date"] for row in rows} == {day(number)}
        self.served[day(number)] = rows

    def count_files(self) -> int:
        return sum(len(names) for _, _, names in os.walk(self.folder / "lake"))

    def live(self, number: int) -> None:
        """Live through a day from its night on."""
        if number == KILLED:
            self.clock.move(moment(number, 2))
            running = "status = 'running'"
            until(lambda: self.lake.rows(columns.RUNS, ["flow"], where=running).num_rows, 120)
            self.serve.close()
            until(lambda: not servers_of(self.port), 60)  # its runs end as well
        elif number == BACK:
            self.clock.move(moment(number, 12))
            self.start()
            self.until_idle()
            self.remember(number)
        elif not KILLED < number < BACK:
            self.go_to(number, 2)
            if number != BROKEN:
                self.remember(number)
            if day(number).weekday() == 6:
                before = self.count_files()
                self.go_to(number, 5)
                self.files.append((before, self.count_files()))
            self.go_to(number, 6)


@pytest.mark.long
@pytest.mark.skipif(COMPILER is None, reason="no C compiler here: apt-get install gcc")
@pytest.mark.timeout(3600)
def test_two_weeks_with_a_broken_batch_and_an_outage(prefect_home: Path, tmp_path: Path) -> None:
    clock = Clock(tmp_path, moment(NIGHTS[0], 1))
    folder, port = tmp_path / "shop", free_port()
    (folder / "source").mkdir(parents=True)
    (folder / "recsys.toml").write_text(SETTINGS)
    env = os.environ | clock.environment | {"PREFECT_HOME": str(prefect_home)}
    env |= {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "OMP_NUM_THREADS": "1"}
    # A day passes in less than the minute after which the server makes the next scheduled runs.
    env |= {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
    env |= {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    shop, life = Shop(USERS, ITEMS, NIGHTS[-1], seed=0), Life(folder, env, port, clock)
    with receiver() as (url, told), life.serve:
        for number in range(NIGHTS[0]):
            life.put(number, shop.day(number))
        life.start()
        alerts = [str(Path(sys.executable).parent / "recsys"), "alerts", "--webhook", url]
        subprocess.run(alerts, env=with_password(env), cwd=folder, check=True)
        for number in NIGHTS:
            events = shop.day(number)
            life.put(number, events, broken=number == BROKEN)
            life.live(number)
            if number == BROKEN:  # the morning after
                life.put(number, events)
            print(day(number), f"{life.count_files():,} files", flush=True)
    check_lists(life)
    check_nights(life)
    check_told(told)
    check_row_counts(life.lake)
    stored = life.lake.rows(columns.INTERACTIONS, list(columns.REQUIRED)).to_pylist()
    assert Counter(tuple(row.values()) for row in stored) == Counter(life.rows)


def check_lists(life: Life) -> None:
    """Every list that was served stands as it was served; no other day has one."""
    without = {day(BROKEN), day(KILLED), day(KILLED + 1)}
    assert life.served.keys() == {day(number) for number in NIGHTS} - without
    rows = life.query("select * from recommendations order by run_date, user_id, rank")
    assert rows == [row for of in life.served.values() for row in of]
    assert {row["status"] for row in life.query("select status from editions")} == {"current"}


def check_nights(life: Life) -> None:
    """It trained by the policy, judged its lists, and kept the lake small."""
    runs = life.query("select flow, status, started, outcome, error from runs order by started")
    nights = [(run, json.loads(run["outcome"])) for run in runs if run["flow"] == "nightly"]
    trained = [outcome["policy"]["why"] for _, outcome in nights if "train" in outcome]
    print("trained:", *trained, sep="\n  ")
    print("files before and after each upkeep:", life.files)
    print("runs:", Counter((run["flow"], run["status"]) for run in runs))
    assert len(trained) >= 2
    models = {row["model_id"] for of in life.served.values() for row in of} - {None}
    assert len(models) >= 2, "a model of the policy serves"
    skipped = [outcome["skipped"] for _, outcome in nights if "skipped" in outcome]
    assert len(skipped) == 1, "the night between the one that was killed and the newest"
    statuses = Counter(run["status"] for run, _ in nights)
    killed = statuses.pop("cancelled", 0) + statuses.pop("crashed", 0)  # by its end, or by the next
    assert (statuses, killed) == ({"completed": len(life.served) + 1, "refused": 1}, 1)
    assert life.query(f"from live_metrics where run_date = '{day(NIGHTS[1])}'")
    upkeep = [json.loads(run["outcome"])["maintain"] for run in runs if run["flow"] == "maintain"]
    merged = [
        each["files"] for of in upkeep for each in of["upkeep"] if each["kind"] == "small files"
    ]
    print("small files merged:", merged)
    assert len(merged) == len(life.files)
    assert all(merged)


def check_told(told: list[str]) -> None:
    """Somebody was told of the broken batch, of its night, and of the lists that were late."""
    print("told:", *told, sep="\n  ")
    assert any(text.startswith("recsys: a batch is refused") for text in told)
    assert any(text.startswith(f"recsys: nightly {day(BROKEN)} is Failed") for text in told)
    late = [text.partition(" yet")[0] for text in told if text.startswith("recsys: no lists of")]
    assert late == [f"recsys: no lists of {day(number)}" for number in (BROKEN, BACK)]
