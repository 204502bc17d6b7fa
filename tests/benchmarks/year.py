"""A year of small nights in one go: `make bench-year`, or `python -m tests.benchmarks.year`.

With `--results FILE` the figures so far are kept: on a machine with other work a year takes hours.

The shop is made from a seed: users and items arrive through the year, tastes follow the season, one
row in a hundred comes days late. Every night ingests a file, judges the lists of the last nights,
measures drift, makes everybody's list and publishes the catalog. One night a month is killed at
some write and run again. Once a week a user is erased, and the lake is maintained. A model is
trained when the policy says so, with limits that suit a small shop.

The clock of the library is the benchmark's, so that every night has its date. That of the Delta log
is the machine's, so that `maintenance.retention` is none here: what one maintenance merges goes
with the next one, as it would with a retention of a week.

On a machine with other work a night takes more CPU, since caches are shared. So a fixed piece of
work is timed beside each night, and months are compared by it too.

It prints a line a month: the median night, the fixed work, files and MB of the lake at their most,
how long the catalog takes to open and a user's list to read, and how many of the users who had
something new got it in their list, beside what a list by popularity would have had.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns
from recsys.catalog.publish import CATALOG_FILE
from recsys.errors import GateError
from recsys.ingest.batch import ingest
from recsys.lake.bound import Bound
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.markdown import markdown_table
from recsys.operations.drift import update_drift
from recsys.operations.erase import erase
from recsys.operations.maintain import maintain
from recsys.operations.monitoring import update_live_metrics
from recsys.operations.runs import record_run
from recsys.registry.policy import decide, read_standing
from recsys.registry.retrain import train
from recsys.settings import Gate, Maintenance, Policy, Recommending, Settings, Source, Training
from recsys.version import code_version
from tests import templates

K, LATE = 10, 0.01
_TIMES = ("seconds", "cpu", "fixed", "maintained", "opened", "read")  # of Month, in seconds
_QUERIES, _FIXED_ROWS = 10, 20_000  # of the fixed work
START = date(2025, 1, 1)
_HOUR = 2  # of a night, UTC
Event = tuple[int, int, datetime]


class Shop:
    """Users, items and what happens between them, day by day; the same seed makes the same year."""

    def __init__(self, users: int, items: int, nights: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        # A third is there on the first day, the others arrive through the year.
        self.user_day = np.maximum(0, self.random.integers(-nights // 2, nights, users))
        self.item_day = np.maximum(0, self.random.integers(-nights // 2, nights, items))
        self.season = self.random.integers(0, 365, items)
        self.next_item = self.random.permutation(items)
        self.last: dict[int, int] = {}
        self.late: defaultdict[int, list[Event]] = defaultdict(list)

    def day(self, number: int) -> list[Event]:
        """What happened in the 24 hours before a night, late rows of earlier days included."""
        shown = np.flatnonzero(self.item_day <= number)
        distance = np.abs((self.season[shown] - number + 182) % 365 - 182)
        weight = np.exp(-distance / 60) / (1 + shown)
        weight /= weight.sum()
        end = datetime(START.year, START.month, START.day, _HOUR, tzinfo=UTC)
        end += timedelta(days=number)
        events = self.late.pop(number, [])
        active = np.flatnonzero(self.user_day <= number)
        active = active[self.random.random(len(active)) < (0.4 if number % 7 > 4 else 0.25)]
        for user in map(int, active):
            follows = int(self.next_item[self.last[user]]) if user in self.last else -1
            if follows < 0 or self.item_day[follows] > number or self.random.random() > 0.6:
                follows = int(self.random.choice(shown, p=weight))
            self.last[user] = follows
            event = user, follows, end - timedelta(seconds=int(self.random.integers(1, 86_400)))
            late = self.random.random() < LATE
            arrives = number + int(self.random.integers(1, 10)) if late else number
            (events if arrives == number else self.late[arrives]).append(event)
        return events


@dataclass
class Month:
    """What was measured in a month."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    fixed: list[float] = field(default_factory=list)
    files: int = 0
    megabytes: float = 0.0
    maintained: list[float] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)


class _Clock(datetime):
    """The library's clock: it stands where the benchmark puts it."""

    moment = datetime(2025, 1, 1, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return cls.moment.astimezone(tz)


@contextmanager
def controlled_clock() -> Iterator[type[_Clock]]:
    """Let every module of the library that asks for the time ask the benchmark."""
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith("recsys.") and vars(module).get("datetime") is datetime
    ]
    patches = [patch.object(module, "datetime", _Clock) for module in modules]
    for each in patches:
        each.start()
    try:
        yield _Clock
    finally:
        for each in patches:
            each.stop()


class Year:
    """A lake that lives through the nights, and what is measured of it."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.shop = Shop(args.users, args.items, args.nights, args.seed)
        self.args, self.source, self.fixed = args, folder / "source", folder / "fixed.parquet"
        self.source.mkdir()
        self.settings = Settings(
            lake=str(folder / "lake"),
            source=Source(uri=str(self.source / "*.parquet")),
            recommending=Recommending(k=K),
            training=Training(
                epochs=3,
                overrides={"width": 16, "blocks": 1, "max_length": 20},
                policy=Policy(max_age=timedelta(days=30), new_data_share=0.5, unknown_share=0.2),
            ),
            gate=Gate(allow_below_baseline=True),  # a model this small is not above item-kNN
            maintenance=Maintenance(retention=timedelta(0)),
            contract={"max_row_count_change": 1000},
            device="cpu",
            threads=1,
        )
        self.random = np.random.default_rng(args.seed + 1)
        self.rows: set[Event] = set()
        self.seen: defaultdict[int, set[int]] = defaultdict(set)
        self.popularity: Counter[int] = Counter()
        self.months: defaultdict[int, Month] = defaultdict(Month)
        self.kills = self.trained = 0
        self.erased: set[int] = set()

    def run(self, clock: type[_Clock]) -> None:
        """Live through all nights."""
        events = self.take(0)
        for number in range(self.args.nights):
            day = START + timedelta(days=number)
            clock.moment = datetime(day.year, day.month, day.day, _HOUR, tzinfo=UTC)
            month = self.months[day.month + 12 * (day.year - START.year)]
            if number % 30 == 29:
                self.kill(day)
            cpu = time.process_time()
            month.seconds.append(_timed(lambda day=day: self.night(day)))
            month.cpu.append(time.process_time() - cpu)
            cpu = time.process_time()
            self.work()
            month.fixed.append(time.process_time() - cpu)
            self.remember(events)
            self.train(day)
            if number % 7 == 3:
                self.erase(clock.moment)
            if number % 7 == 6:
                self.measure(month)
                month.maintained.append(_timed(self.maintain))
            events = self.take(number + 1)
            month.hits.update(self.hits(day, events))
            if number % 30 == 0:
                self.write()
                print(
                    f"{day}: {month.seconds[-1]:.2f} s, CPU {month.cpu[-1]:.2f} s",
                    file=sys.stderr,
                    flush=True,
                )

    def work(self) -> None:
        """Do a fixed piece of work, of what nights are made of: files, queries, Python."""
        if not self.fixed.exists():
            numbers = np.random.default_rng(0).integers(0, 1000, (2, _FIXED_ROWS))
            pq.write_table(pa.table({"a": numbers[0], "b": numbers[1]}), self.fixed)
        with duckdb.connect(config={"threads": 1}) as con:
            for number in range(_QUERIES):
                rows = con.execute(
                    "select a, count(distinct b), sum(b) from read_parquet(?) where b > ? "
                    "group by a order by 2 desc, 1",
                    [str(self.fixed), number],
                ).fetchall()
                assert json.loads(json.dumps([list(map(int, row)) for row in rows]))

    def write(self) -> None:
        """Write what was measured so far, so that a year that is stopped leaves its figures."""
        if self.args.results is None:
            return
        months = {}
        for number, month in self.months.items():
            figures = {name: list(map(float, getattr(month, name))) for name in _TIMES}
            months[number] = {
                **figures,
                "files": month.files,
                "megabytes": month.megabytes,
                "hits": dict(month.hits),
            }
        sizes = {name: getattr(self.args, name) for name in ("nights", "users", "items", "seed")}
        counts = {"trainings": self.trained, "kills": self.kills, "erased": len(self.erased)}
        written = {"code": code_version(), "sizes": sizes, "counts": counts, "months": months}
        self.args.results.write_text(json.dumps(written, indent=2))

    def take(self, number: int) -> list[Event]:
        """Put the file of a night where the source is."""
        events = self.shop.day(number)
        if events:
            users, items, times = map(list, zip(*events, strict=True))
            table = {
                columns.USER_ID: pa.array(users, pa.int64()),
                columns.ITEM_ID: pa.array(items, pa.int64()),
                columns.TIMESTAMP: pa.array(times, pa.timestamp("us", "UTC")),
            }
            pq.write_table(pa.table(table), self.source / f"{number:04}.parquet")
        return events

    def remember(self, events: list[Event]) -> None:
        """Know what the lake knows after a night."""
        events = [event for event in events if event[0] not in self.erased]
        self.rows |= set(events)
        for user, item, _ in events:
            self.seen[user].add(item)
            self.popularity[item] += 1

    def night(self, day: date) -> None:
        """Ingest, judge earlier lists, look for drift, recommend, publish."""
        with record_run("nightly", f"night {day}", self.settings, {}) as run:
            run.record("ingest", ingest(run.lake, self.settings))
            run.record("live_metrics", update_live_metrics(run.lake, self.settings, day))
            run.record("drift", update_drift(run.lake, self.settings, day))
            bound = Bound.of(self.settings, day, "now")
            lists = recommend(run.lake, self.settings, run_date=day, run_id=run.run_id, bound=bound)
            run.record("recommend", lists)

    def kill(self, day: date) -> None:
        """Begin a night that ends at one of its writes, before it or after it."""
        left, is_after = int(self.random.integers(1, 7)), bool(self.random.integers(2))
        real = Lake.writing

        @contextmanager
        def writing(lake: Lake, table: str) -> Iterator[Any]:
            nonlocal left
            left -= 1
            if left == 0 and not is_after:
                raise KeyboardInterrupt
            with real(lake, table) as target:
                yield target
            if left == 0:
                raise KeyboardInterrupt

        try:
            with patch.object(Lake, "writing", writing):
                self.night(day)
        except KeyboardInterrupt:
            self.kills += 1

    def erase(self, moment: datetime) -> None:
        """Erase a user, who does nothing any more; late rows of theirs may still come."""
        user = int(self.random.choice(sorted(self.seen.keys() - self.erased)))
        with record_run("erase", f"erase {moment}", self.settings, {}) as run:
            run.record("erase", erase(run.lake, str(user), "asked for it", now=moment))
        self.erased.add(user)
        self.shop.user_day[user] = 10**6
        self.rows = {event for event in self.rows if event[0] != user}

    def train(self, day: date) -> None:
        """Train where the policy says so; the gate decides who serves."""
        lake = Lake.from_settings(self.settings)
        standing = read_standing(lake, self.settings, "policy")
        if decide("policy", self.settings.training.policy, standing, _Clock.moment).train:
            with suppress(GateError):  # too little data, in the first nights
                with record_run("train", f"train {day}", self.settings, {}) as run:
                    run.record("train", train(run.lake, self.settings))
                self.trained += 1

    def maintain(self) -> None:
        """Do the weekly upkeep."""
        with record_run("maintain", f"maintain {_Clock.moment}", self.settings, {}) as run:
            run.record("maintain", maintain(run.lake, self.settings, now=_Clock.moment))

    def measure(self, month: Month) -> None:
        """Measure the lake where it is largest: before it is maintained."""
        files = [path for path in Path(self.settings.lake).rglob("*") if path.is_file()]
        month.files = max(month.files, len(files))
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        month.megabytes = max(month.megabytes, megabytes)
        started = time.perf_counter()
        with duckdb.connect(Path(self.settings.lake) / CATALOG_FILE, read_only=True) as con:
            users = con.execute("select distinct user_id from latest_recommendations").fetchall()
            month.opened.append(time.perf_counter() - started)
            ask = "select item_id from latest_recommendations where user_id = ? order by rank"
            for (user,) in users[:: max(1, len(users) // 9)]:
                month.read.append(_timed(lambda user=user: con.execute(ask, [user]).fetchall()))

    def hits(self, day: date, events: list[Event]) -> Counter[str]:
        """Count users who had a new item on the day that their list was for, and who got it."""
        with duckdb.connect(Path(self.settings.lake) / CATALOG_FILE, read_only=True) as con:
            rows = con.execute(
                "select user_id, list(item_id) from recommendations where run_date = ? group by 1",
                [day],
            ).fetchall()
        lists = {user: set(items) for user, items in rows}
        found: Counter[str] = Counter()
        ranked = [item for item, _ in self.popularity.most_common()]
        new: defaultdict[int, set[int]] = defaultdict(set)
        for user, item, _ in events:
            if item not in self.seen[user]:
                new[user].add(item)
        for user, items in new.items():
            if user in lists:
                popular = [item for item in ranked if item not in self.seen[user]][:K]
                found.update(
                    users=1, hits=bool(items & lists[user]), popular=bool(items & set(popular))
                )
        return found

    def check(self) -> None:
        """Refuse a year that lost, doubled or invented a row, or a day of lists."""
        lake = Lake.from_settings(self.settings)
        check_row_counts(lake)
        stored = lake.rows(columns.INTERACTIONS, list(columns.REQUIRED)).to_pylist()
        rows = Counter(tuple(row[name] for name in columns.REQUIRED) for row in stored)
        assert rows == Counter(self.rows), "rows are lost, doubled or invented"
        users = lake.rows(columns.RECOMMENDATIONS, [columns.USER_ID])[columns.USER_ID]
        assert not self.erased & set(users.to_pylist()), "an erased user is back"
        days = lake.partitions(columns.RECOMMENDATIONS, "run_date")
        days |= {str(day) for day in lake.rows(columns.LIST_DAYS)["run_date"].to_pylist()}
        nights = {str(START + timedelta(days=number)) for number in range(self.args.nights)}
        assert days == nights, "a day of lists is lost"
        judged = {str(day) for day in lake.rows(columns.LIVE_METRICS)["run_date"].to_pylist()}
        assert judged == nights - {max(nights)}, "a day of lists was not judged"


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def table(months: dict[int, Month]) -> str:
    """Return the figures of each month as a Markdown table."""
    heads = (
        "month",
        "median night",
        "its CPU",
        "fixed work",
        "maintenance",
        "files",
        "MB",
        "open the catalog",
        "one list",
    )
    rows = []
    for number, month in months.items():
        hits = month.hits
        rows.append(
            (
                str(number),
                f"{np.median(month.seconds):.2f} s",
                f"{np.median(month.cpu):.2f} s",
                f"{np.median(month.fixed):.3f} s",
                f"{np.median(month.maintained):.1f} s" if month.maintained else "",
                f"{month.files:,}",
                f"{month.megabytes:.1f}",
                f"{1e3 * np.median(month.opened):.1f} ms" if month.opened else "",
                f"{1e3 * np.median(month.read):.2f} ms" if month.read else "",
                f"{hits['hits'] / max(1, hits['users']):.3f}",
                f"{hits['popular'] / max(1, hits['users']):.3f}",
                f"{hits['users']:,}",
            )
        )
    heads = (*heads, "hit rate at 10", "popularity's", "users")
    return "\n".join(markdown_table(heads, rows)).rstrip()


def main(arguments: list[str] | None = None) -> Year:
    """Run the year and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--users", type=int, default=200, help="at the end of the year")
    parser.add_argument("--items", type=int, default=120, help="at the end of the year")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="a JSON file, written every thirty nights")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, controlled_clock() as clock:
        os.environ.setdefault(templates.FOLDER, folder)
        templates.keep_compiled()  # most of a small night would be that
        year = Year(Path(folder), args)
        started = time.perf_counter()
        year.run(clock)
        year.write()
        year.check()
        seconds = time.perf_counter() - started
    print(table(year.months))
    if {2, 12} <= year.months.keys():
        wall, cpu, fixed = (
            np.median(getattr(year.months[12], name)) / np.median(getattr(year.months[2], name))
            for name in ("seconds", "cpu", "fixed")
        )
        print(
            f"\nmedian night of month 12 by month 2's: {wall:.2f} in seconds, {cpu:.2f} in CPU, "
            f"{cpu / fixed:.2f} in CPU by that of the fixed work ({fixed:.2f})"
        )
    print(
        f"{args.nights} nights in {seconds / 60:.1f} minutes; {len(year.rows):,} rows, "
        f"{year.trained} trainings, {year.kills} killed nights, {len(year.erased)} erased users: "
        "no row lost or doubled, no day of lists missing, nobody back"
    )
    return year


if __name__ == "__main__":
    main()
