"""A run on S3 opens what it needs once, and sees what others write."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from recsys.errors import LakeError
from recsys.lake import object_store
from recsys.lake.commits import CHECKPOINT_EVERY, create_checkpoint
from recsys.lake.maintenance import shorten_log
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests import lakes, servers
from tests.benchmarks.requests import kinds, open_shop


@pytest.mark.slow
def test_a_night_makes_few_requests_and_the_next_ones_hardly_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    with open_shop(tmp_path, monkeypatch) as shop:
        for number in range(1, 4):
            shop.put_day(number)
            requests = shop.night(number)
            counts.append(len(requests))
        unchanged = shop.night(3)
    shown = "\n".join(f"{count} {kind}" for kind, count in kinds(requests).most_common())
    assert counts[1] < 200, shown
    # A commit of the log is one more to read, twice, until the next checkpoint.
    # The report reads each small file that no step has read before it.
    assert max(counts[2:]) < 280, shown
    assert len(unchanged) < 200


@pytest.fixture(params=["local", "s3"])
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Lake, Lake]]:
    """Two objects of the same lake, as two processes have them."""
    if request.param == "local":
        root = str(tmp_path / "lake")
        yield Lake(root, ObjectStorage()), Lake(root, ObjectStorage())
        return
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="lake")
        storage = ObjectStorage(endpoint_url=endpoint)
        yield Lake("s3://lake/nightly", storage), Lake("s3://lake/nightly", storage)


def users(lake: Lake) -> list[int]:
    return sorted(lake.rows("interactions", ["user_id"])["user_id"].to_pylist())


def foreign(lake: Lake, user: int) -> None:
    """Append a row as another program does, which knows nothing of our runs."""
    row = lake.rows("interactions").slice(0, 1)
    place = row.schema.get_field_index("user_id")
    row = row.set_column(place, row.schema.field(place), pa.array([user]))
    write_deltalake(lake.open("interactions"), row, mode="append")


@pytest.mark.slow
def test_what_another_run_has_changed_is_not_written_to_before_it_is_read_again(
    pair: tuple[Lake, Lake],
) -> None:
    ours, other = pair
    lakes.fill(other, {1: [7]})
    with ours.write_lock():
        rows = ours.rows("interactions")
        lakes.fill(other, {2: [7]})
        for write in (
            lambda: ours.append("interactions", rows),
            lambda: ours.replace("interactions", rows, where="user_id = 1"),
            lambda: ours.delete("interactions", "user_id = 1"),
        ):
            lakes.fill(other, {3: [7]})
            with pytest.raises(LakeError, match="another run has changed the table") as refused:
                write()
            assert refused.value.transient
        assert users(ours) == [1, 2, 3, 3, 3], "the next try sees it"
        ours.delete("interactions", "user_id = 3")
    assert users(other) == [1, 2]


@pytest.mark.slow
def test_a_run_sees_what_was_written_before_it_and_writes_to_the_newest_version(
    pair: tuple[Lake, Lake],
) -> None:
    ours, other = pair
    lakes.fill(other, {1: [7]})
    with ours.write_lock():
        assert users(ours) == [1]
        foreign(other, 2)
        assert users(ours) == [1], "within a run, tables stay as they were"
        rows = ours.rows("interactions")
        assert ours.append("interactions", rows) == 3, "after the version that the other wrote"
        assert users(ours) == [1, 1, 2]
        where = "user_id = 2"
        assert ours.replace("interactions", rows.slice(0, 0), where=where) == 4
        assert users(ours) == [1, 1]
        lakes.fill(other, {3: [7]})
        assert users(ours) == [1, 1]
        ours.refresh()
        assert users(ours) == [1, 1, 3]
        other.delete("interactions", "user_id = 3")
    assert users(ours) == [1, 1], "outside a run nothing is remembered"
    lakes.fill(other, {3: [7]})
    assert users(ours) == [1, 1, 3]
    with ours.write_lock():
        assert users(ours) == [1, 1, 3]
        assert ours.open("interactions", 1).version() == 1
        assert ours.version("interactions") == 7


@pytest.mark.slow
def test_a_table_that_is_not_there_yet_is_asked_for_again(pair: tuple[Lake, Lake]) -> None:
    ours, other = pair
    with ours.write_lock():
        assert not ours.exists("interactions")
        lakes.fill(other, {1: [7]})
        assert ours.exists("interactions")
        assert users(ours) == [1]


@pytest.mark.slow
def test_the_log_is_summed_up_every_few_commits_and_loses_nothing(pair: tuple[Lake, Lake]) -> None:
    ours, other = pair
    lakes.fill(ours, {0: [7]})
    with ours.write_lock():
        for user in range(1, 12):
            table = pa.Table.from_pylist(
                [{"run_id": str(user), "flow": "nightly", "status": "completed"}],
                schema=ours.schema("runs"),
            )
            ours.append("runs", table, transaction=f"b{user}", note={"user": user})
    assert len(checkpoints(ours, "runs")) == 2
    found = list(other.commits("runs"))
    assert [version for version, *_ in found] == list(range(11, -1, -1))
    assert [note.get("user") for *_, note in found] == [*range(11, 0, -1), None]
    assert list(other.commits("runs", 3)) == found[:3]
    assert next(other.commits("runs")) == found[0]
    assert all(other.has("runs", f"b{user}") for user in range(1, 12))
    assert not other.has("runs", "b12")
    assert sorted(map(int, other.rows("runs")["run_id"].to_pylist())) == list(range(1, 12))


@pytest.mark.slow
def test_a_small_table_on_s3_stays_in_few_files(pair: tuple[Lake, Lake]) -> None:
    ours, other = pair
    lakes.fill(ours, {0: [7]})
    for number in range(7):
        run = {"run_id": str(number % 5), "flow": "nightly", "status": f"try {number}"}
        row = pa.Table.from_pylist([run], schema=ours.schema("runs"))
        ours.replace("runs", row, where=f"run_id = '{number % 5}'")
    assert ours.is_local or len(ours.open("runs").file_uris()) <= 2
    assert ours.version("runs") == 7, "in the same commits"
    rows = other.rows("runs").sort_by("run_id")
    assert rows["status"].to_pylist() == [f"try {number}" for number in (5, 6, 2, 3, 4)]
    assert rows.schema == ours.schema("runs")


@pytest.mark.slow
def test_a_table_with_a_checkpoint_opens_with_few_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_shop(tmp_path, monkeypatch) as shop:
        lake = Lake(shop.settings.lake, shop.settings.s3)
        lakes.fill(lake, {0: [7]})
        rows = lake.rows("interactions")
        for number in range(3):
            lake.append("interactions", rows, transaction=f"b{number}")
        before = DeltaTable(lake.uri("interactions"), None, lake.storage.delta_options())
        create_checkpoint(before, lake.uri("interactions"), lake.storage)
        made = len(shop.requests())
        opened = lake.open("interactions")
        assert len(shop.requests()) - made == 6, shop.requests()[made:]
        assert opened.version() == before.version()
        assert opened.metadata() == before.metadata()
        assert opened.protocol() == before.protocol()
        assert sorted(opened.file_uris()) == sorted(before.file_uris())
        lake.add_columns("interactions", pa.schema([("later", pa.int64())]), note={})
        assert "later" in lake.schema("interactions").names, "of the commits since"
        assert lake.has("interactions", "b1")
        assert not lake.has("interactions", "b9")


@pytest.mark.slow
def test_a_checkpoint_of_maintenance_counts(lake: Lake) -> None:
    lakes.fill(lake, {0: [7]})
    rows = lake.rows("interactions")
    for maintained in (8, 20, 32):  # at different distances from the next version that is looked at
        while lake.version("interactions") < maintained:
            lake.append("interactions", rows)
        shorten_log(lake, "interactions", timedelta(days=7))
        made = checkpoints(lake, "interactions")
        version = lake.version("interactions")
        assert made[-1] == version
        for _ in range(2 * CHECKPOINT_EVERY):
            lake.append("interactions", rows)
        later = [one for one in checkpoints(lake, "interactions") if one > version]
        assert later[0] - version >= CHECKPOINT_EVERY, "a night does not write what there is"
        assert lake.version("interactions") - later[-1] < CHECKPOINT_EVERY


def checkpoints(lake: Lake, table: str) -> list[int]:
    """Return the versions of a table that have a checkpoint."""
    pattern = lake.uri(table, "_delta_log", "*.checkpoint.parquet")
    if lake.is_local:
        keys = [str(path) for path in Path(lake.uri(table, "_delta_log")).glob("*.checkpoint.*")]
    else:
        keys = [stored.key for stored in object_store.find(pattern, lake.storage)]
    return sorted(int(Path(key).name.partition(".")[0]) for key in keys)


@pytest.mark.slow
def test_one_client_serves_an_endpoint_until_the_credentials_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers.use_credentials(monkeypatch)
    here, there = (ObjectStorage(endpoint_url=f"http://127.0.0.1:{port}") for port in (1, 2))
    first = object_store._client(here)
    assert object_store._client(ObjectStorage(endpoint_url=here.endpoint_url)) is first
    assert object_store._client(there) is not first
    servers.use_credentials(monkeypatch, secret="another")  # noqa: S106 - of a test
    assert object_store._client(here) is not first
