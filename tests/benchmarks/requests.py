"""Count the HTTP requests of nights on S3, by hand: `python -m tests.benchmarks.requests [NIGHTS]`.

Each night does what the flow `nightly` does by default, but for a training. It brings one object of
new interactions for 40 users: it is ingested, live metrics and drift are measured, everybody's list
is made by popularity, and the catalog and the report are published. Every seventh night the lake is
maintained. Requests are read off moto's log; `-v` shows those of the last night by kind.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from mypy_boto3_s3 import S3Client

from recsys.ingest.batch import ingest
from recsys.lake.bound import Bound
from recsys.lists.recommend import recommend
from recsys.operations.drift import update_drift
from recsys.operations.maintain import maintain
from recsys.operations.monitoring import update_live_metrics
from recsys.operations.runs import record_run
from recsys.registry.models import find_champion
from recsys.registry.policy import read_standing
from recsys.settings import ObjectStorage, Recommending, Settings, Source
from tests import servers

USERS, ITEMS = 40, 25
FIRST = date(2026, 1, 2)
WEEK = 7
_REQUEST = re.compile(r'"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP')


class Shop:
    """A source and a lake on one S3 server, and the requests that its nights make."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder, self.log = folder, folder / "moto.log"
        self.client: S3Client = servers.client(endpoint)
        for bucket in ("shop", "lake"):
            self.client.create_bucket(Bucket=bucket)
        self.settings = Settings(
            lake="s3://lake/nightly",
            s3=ObjectStorage(endpoint_url=endpoint),
            source=Source(uri="s3://shop/events/*.parquet"),
            recommending=Recommending(k=5),
            device="cpu",
            threads=1,
        )

    def put_day(self, number: int) -> None:
        """Put an object of this day's interactions: nine for everybody at first, then one."""
        steps = "0, 9" if number == 1 else f"{number + 7}, {number + 8}"
        path = self.folder / "day.parquet"
        with duckdb.connect() as con:
            con.execute(
                f"copy (select u as user_id, 'item ' || ((u * 7 + s) % {ITEMS}) as item_id, "
                "timestamp '2026-01-01' + to_minutes(s::int) as timestamp "
                f"from range({USERS}) users(u), range({steps}) steps(s)) to '{path}' "
                "(format parquet)"
            )
        self.client.upload_file(str(path), "shop", f"events/{number:03}.parquet")

    def night(self, number: int) -> list[str]:
        """Run a night; return its requests, each as method and path."""
        before = len(self.requests())
        day = FIRST + timedelta(days=number)
        with record_run("nightly", f"run {number}", self.settings, {}) as run:
            assert find_champion(run.lake) is None
            run.record("ingest", ingest(run.lake, self.settings))
            run.record("live_metrics", update_live_metrics(run.lake, self.settings, day))
            run.record("drift", update_drift(run.lake, self.settings, day))
            read_standing(run.lake, self.settings, "policy")
            bound = Bound.of(self.settings, day, "now")
            result = recommend(
                run.lake, self.settings, run_date=day, run_id=run.run_id, bound=bound
            )
            run.record("recommend", result)
        return self.requests()[before:]

    def maintain(self, number: int) -> list[str]:
        """Do the upkeep of the lake; return its requests."""
        before = len(self.requests())
        with record_run("maintain", f"maintain {number}", self.settings, {}) as run:
            now = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC) + timedelta(days=number)
            run.record("maintain", maintain(run.lake, self.settings, now=now))
        return self.requests()[before:]

    def requests(self) -> list[str]:
        """Return all requests so far, each as method and path."""
        return [" ".join(found) for found in _REQUEST.findall(self.log.read_text())]


def kinds(requests: list[str]) -> Counter[str]:
    """Count requests by method, table and what is asked for."""
    counts: Counter[str] = Counter()
    for request in requests:
        method, _, path = request.partition(" ")
        path = re.sub(r"/\d{20}\.", "/N.", path)
        path = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}[^/?]*?(?=\.|$|\?)", "ID", path)
        path = re.sub(r"(part-)\d+-ID[^?]*", "part", path)
        path = re.sub(r"\?.*prefix=([^&]*).*", r"?list \1", path)
        counts[f"{method} {path}"] += 1
    return counts


@contextmanager
def open_shop(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Give a shop on a moto server of its own."""
    servers.use_credentials(patch)
    with servers.moto_server(folder) as endpoint:
        yield Shop(folder, endpoint)


def main(nights: int, is_verbose: bool) -> None:
    counts: list[int] = []
    with (
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
        open_shop(Path(name), patch) as shop,
    ):
        for number in range(1, nights + 1):
            shop.put_day(number)
            requests = shop.night(number)
            counts.append(len(requests))
            print(f"night {number}: {len(requests)} requests", flush=True)
            if number % WEEK == 0:
                print(f"maintenance: {len(shop.maintain(number))} requests", flush=True)
        for kind, count in kinds(requests).most_common() if is_verbose else ():
            print(f"    {count:5} {kind}", flush=True)
        print(f"a night that changes nothing: {len(shop.night(nights))} requests")
    if nights > WEEK:
        last = counts[-WEEK:]
        mean = sum(last) / WEEK
        print(
            f"night 2: {counts[1]}; the last week: {mean:.0f} a night, {max(last)} at most, "
            f"{mean / counts[1]:.2f} of night 2"
        )


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    main(*(numbers or [30]), is_verbose="-v" in sys.argv)
