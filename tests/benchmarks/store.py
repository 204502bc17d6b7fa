"""What S3 costs an ingest, by hand: `python -m tests.benchmarks.store slow|many|folder [OBJECTS]`.

`slow`: a first and a second ingest of 40 rows, where the store answers each request after half a
second. `many`: sources of many small objects, Parquet, CSV and JSON Lines, one ingest each. Both on
moto, on the loopback. `folder`: the same files in a local folder.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from recsys.ingest.batch import ingest
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage, Settings, Source
from tests import servers
from tests.faulty_s3 import FaultyS3, faulty_s3

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def rows(first: int, count: int) -> pa.Table:
    """Interactions of as many users, a minute apart."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "user_id": list(numbers),
            "item_id": [number % 25 for number in numbers],
            "timestamp": [DAY + timedelta(minutes=number) for number in numbers],
        }
    )


def content(table: pa.Table, write: Callable[[pa.Table, io.BytesIO], object]) -> bytes:
    """Return a file's content."""
    buffer = io.BytesIO()
    write(table, buffer)
    return buffer.getvalue()


def settings(endpoint: str) -> Settings:
    storage = ObjectStorage(endpoint_url=endpoint, region="us-east-1")
    return Settings(lake="s3://lake/nightly", s3=storage, device="cpu")


class Steps:
    """Prints when each step begins."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, _: str, done: int, total: int, note: str = "") -> None:
        """Print a line."""
        print(f"    {time.monotonic() - self.started:6.1f} s: {note} ({done}/{total})", flush=True)


def slow(s3: FaultyS3) -> None:
    """Ingest 40 rows twice from a store that takes half a second to answer."""
    ours = settings(s3.endpoint)
    client = servers.client(s3.endpoint)
    for number in range(2):
        body = content(rows(number * 40, 40), pq.write_table)
        client.put_object(Bucket="shop", Key=f"events/{number}.parquet", Body=body)
        lake, started = Lake.from_settings(ours), time.monotonic()
        with s3.failing("slow", "."), lake.write_lock():
            result = ingest(lake, ours, Source(uri="s3://shop/events/*.parquet"))
        assert result.accepted == 40
        print(f"ingest {number + 1} of 40 rows: {time.monotonic() - started:.1f} s", flush=True)


def write_jsonl(table: pa.Table, buffer: io.BytesIO) -> None:
    for row in table.to_pylist():
        line = json.dumps({**row, "timestamp": row["timestamp"].isoformat()})
        buffer.write(line.encode() + b"\n")


KINDS = {"parquet": pq.write_table, "csv": pyarrow.csv.write_csv, "jsonl": write_jsonl}


def many(ours: Settings, put: Callable[[str, bytes], object], root: str, count: int) -> None:
    """Ingest many files of ten rows, of each kind, that ``put`` has written under a root."""
    for place, (kind, write) in enumerate(KINDS.items()):
        first = place * 10 * count
        with ThreadPoolExecutor(8) as pool:
            for number in range(count):
                body = content(rows(first + number * 10, 10), write)
                pool.submit(put, f"{kind}/{number:06}.{kind}", body)
        lake = Lake.from_settings(ours)
        started, cpu = time.monotonic(), time.process_time()
        with lake.write_lock():
            result = ingest(lake, ours, Source(uri=f"{root}/{kind}/*.{kind}"), progress=Steps())
        assert (result.accepted, result.objects) == (10 * count, count)
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        print(f"{count:,} {kind} files: {seconds:.1f} s, {cpu:.1f} CPU s", flush=True)


def main(arguments: list[str]) -> None:
    count = int(arguments[-1]) if arguments[-1].isdigit() else 10_000
    if "folder" in arguments:
        with tempfile.TemporaryDirectory() as name:
            for kind in KINDS:
                (Path(name) / kind).mkdir()
            ours = Settings(lake=f"{name}/lake", device="cpu")
            many(ours, lambda key, body: (Path(name) / key).write_bytes(body), name, count)
        return
    with (
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
        faulty_s3(Path(name)) as s3,
    ):
        servers.use_credentials(patch)
        for bucket in ("shop", "lake"):
            servers.client(s3.endpoint).create_bucket(Bucket=bucket)
        if "many" in arguments:
            client = servers.client(s3.endpoint)

            def put(key: str, body: bytes) -> None:
                client.put_object(Bucket="shop", Key=key, Body=body)

            many(settings(s3.endpoint), put, "s3://shop", count)
        else:
            slow(s3)


if __name__ == "__main__":
    main(sys.argv[1:])
