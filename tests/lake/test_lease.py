"""Two runs on a lake on S3: one waits for the other; one that lost its turn writes nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pytest

from recsys.errors import ConfigurationError, LakeError
from recsys.lake import lease, lock, object_store
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import lakes, servers

ROOT = "s3://lake/nightly"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="lake")
        yield ObjectStorage(endpoint_url=endpoint)


def leases(storage: ObjectStorage) -> list[tuple[str, int]]:
    """Number and size of the leases that are there."""
    stored, _ = object_store.listed(f"{ROOT}/.lease/", storage)
    return [(each.uri.rpartition("/")[2].lstrip("0"), each.size) for each in stored]


def append(lake: Lake, user: int) -> None:
    row = lake.rows("interactions").slice(0, 1)
    place = row.schema.get_field_index("user_id")
    lake.append("interactions", row.set_column(place, row.schema.field(place), pa.array([user])))


def users(storage: ObjectStorage) -> list[int]:
    rows = Lake(ROOT, storage).rows("interactions", ["user_id"])
    return sorted(rows["user_id"].to_pylist())


@pytest.mark.slow
def test_a_run_waits_for_another_one_and_says_for_which(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "_POLL_SECONDS", 0.0)
    first, second = Lake(ROOT, storage), Lake(ROOT, storage)
    lakes.fill(first, {1: [7]})
    ended: list[str] = []

    def wait_and_write() -> None:
        with second.write_lock("ingest r-2"):
            ended.append("second")
            append(second, 3)

    with first.write_lock("nightly r-1"):
        other = Thread(target=wait_and_write)
        other.start()
        while "is writing" not in caplog.text:
            time.sleep(0.01)
        assert users(storage) == [1], "readers never wait"
        append(first, 2)
        ended.append("first")
    other.join()
    assert ended == ["first", "second"]
    assert users(storage) == [1, 2, 3]
    assert "another run (nightly r-1, started 20" in caplog.text
    assert leases(storage) == [("1", 0), ("2", 0)], "given back"
    monkeypatch.setattr(lock, "_WAIT_SECONDS", 0.0)
    with (
        first.write_lock("nightly r-1"),
        pytest.raises(
            LakeError, match=r"\(nightly r-1, started .* has been writing to s3:"
        ) as told,
        second.write_lock(),
    ):
        pass
    assert told.value.transient


@pytest.mark.slow
def test_a_lease_is_renewed_while_its_run_lives_and_expires_after_it(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRES_AFTER", 3.0)
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.5)
    monkeypatch.setattr(lease, "_POLL_SECONDS", 0.1)
    owner, other = Lake(ROOT, storage), Lake(ROOT, storage)
    lakes.fill(owner, {1: [7]})
    with owner.write_lock("nightly r-1"):
        monkeypatch.setattr(lock, "_WAIT_SECONDS", 4.0)
        with pytest.raises(LakeError, match="has been writing"), other.write_lock("ingest r-2"):
            pass
        monkeypatch.setattr(lock, "_WAIT_SECONDS", 60.0)
        monkeypatch.setattr(lease.Lease, "_renew", lambda *_: None)
    with owner.write_lock("nightly r-3"):  # it lives, and does not renew
        begun = time.monotonic()
        with other.write_lock("ingest r-4"):
            assert 1 < time.monotonic() - begun < 30
            append(other, 2)
            with pytest.raises(LakeError, match="no longer has the lease of s3://lake/nightly: it"):
                append(owner, 3)
    assert users(storage) == [1, 2]


def test_old_leases_are_removed(storage: ObjectStorage) -> None:
    lake = Lake(ROOT, storage)
    for _ in range(14):
        with lake.write_lock():
            pass
    numbers = [int(number) for number, _ in leases(storage)]
    assert numbers[-1] == 14
    assert len(numbers) <= 12


@pytest.mark.slow
def test_an_endpoint_that_ignores_the_condition_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.use_credentials(monkeypatch)
    with servers.rclone_s3(tmp_path) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="lake")
        lake = Lake(ROOT, ObjectStorage(endpoint_url=endpoint))
        with (
            pytest.raises(ConfigurationError, match=r"set s3\.single_writer = true"),
            lake.write_lock(),
        ):
            pass
        alone = Lake(ROOT, ObjectStorage(endpoint_url=endpoint, single_writer=True))
        with alone.write_lock():
            lakes.fill(alone, {1: [7]})


# --- rounds of two writers


def count_up(endpoint: str, name: str, seed: int, rounds: int, expires_after: float) -> None:
    """Read a number and write the next one, alone; try again where that is refused."""
    chance = np.random.default_rng(seed)
    lease.EXPIRES_AFTER, lease.RENEW_EVERY = expires_after, expires_after / 4
    lease._POLL_SECONDS = 0.05
    lake = Lake(ROOT, ObjectStorage(endpoint_url=endpoint))
    done = refused = 0
    while done < rounds:
        try:
            with lake.write_lock(f"{name} {done}"):
                newest = max(lake.rows("interactions", ["user_id"])["user_id"].to_pylist())
                time.sleep(chance.random() / 50)
                append(lake, newest + 1)
            done += 1
        except LakeError as error:
            if not error.transient:
                raise
            refused += 1
    print(f"{name}: {done} rounds, refused {refused} times", flush=True)


@pytest.mark.parametrize(
    ("rounds", "stops"), [(3, 0), pytest.param(60, 12, marks=pytest.mark.long)]
)
@pytest.mark.timeout(900)
def test_two_writers_at_once_end_as_one_after_the_other(
    storage: ObjectStorage, rounds: int, stops: int
) -> None:
    """Each writes the successor of the newest row; some are stopped for longer than a lease."""
    seed = int(os.environ.get("WRITERS_SEED", time.time()))
    print(f"WRITERS_SEED={seed}")
    chance = np.random.default_rng(seed)
    lakes.fill(Lake(ROOT, storage), {0: [7]})
    expires_after = 2.0 if stops else lease.EXPIRES_AFTER
    spawn = multiprocessing.get_context("spawn")
    both = [
        spawn.Process(
            target=count_up,
            args=(storage.endpoint_url, name, seed + number, rounds, expires_after),
            daemon=True,
        )
        for number, name in enumerate(("nightly", "ingest"))
    ]
    for each in both:
        each.start()
    for _ in range(stops):
        time.sleep(2 * chance.random())
        victim = both[chance.integers(2)]
        if victim.is_alive() and victim.pid:
            os.kill(victim.pid, signal.SIGSTOP)
            time.sleep(5 * chance.random())
            os.kill(victim.pid, signal.SIGCONT)
    for each in both:
        each.join(600)
    assert [each.exitcode for each in both] == [0, 0]
    assert users(storage) == list(range(2 * rounds + 1))


def test_a_lease_names_its_run(storage: ObjectStorage) -> None:
    with Lake(ROOT, storage).write_lock("train r-7"):
        told = json.loads(object_store.get(f"{ROOT}/.lease/000000000001", storage))
    assert told["holder"] == "train r-7"
    assert told["process"].startswith(told["host"])
