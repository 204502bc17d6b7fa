from __future__ import annotations

import logging
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from recsys import columns
from recsys.errors import LakeError
from recsys.histories import ItemIds, Packed
from recsys.lake.engine import open_duckdb
from recsys.lake.history_cache import load_histories
from recsys.lake.packing import pack
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage, Settings
from tests import lakes, servers
from tests.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = columns.INTERACTIONS
MERGED = "packing 1 new files"


def afresh(
    lake: Lake, settings: Settings, version: int | None = None, first: ItemIds | None = None
) -> Packed:
    with open_duckdb(settings) as con:
        lake.view(con, TABLE, version)
        return pack(con, first)


def packed(
    lake: Lake, settings: Settings, version: int | None = None, first: ItemIds | None = None
) -> Packed:
    with open_duckdb(settings) as con:
        return load_histories(lake, con, lake.open(TABLE, version).version(), first)


def assert_same(found: Packed, right: Packed) -> None:
    assert found.users.equals(right.users)
    assert found.items.ids.equals(right.items.ids)
    assert found.counts.tolist() == right.counts.tolist()
    for name in ("items", "starts", "ends"):
        ours, theirs = getattr(found.histories, name), getattr(right.histories, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name


def files(lake: Lake) -> set[Path]:
    return set(Path(lake.uri(TABLE)).glob("*.parquet"))


def night(
    lake: Lake, day: int, triples: list[tuple[Any, Any, int]], *, numbered: bool = True
) -> None:
    """Append (user, item, hour) rows, ingested on a day, in the order given or in none."""
    rows = [
        {
            "user_id": user,
            "item_id": item,
            "timestamp": lakes.START + timedelta(hours=hour),
            "source_row": row if numbered else None,
            "ingested_at": lakes.START + timedelta(days=day),
        }
        for row, (user, item, hour) in enumerate(triples)
    ]
    lakes.write(lake, TABLE, rows)


@pytest.fixture
def grown(lake: Lake) -> Lake:
    """100 users with five interactions each, taken in one night."""
    lake.create(pa.int64(), pa.int64())
    night(lake, 0, [(u, (u * 7 + hour * 3) % 20, hour) for hour in range(5) for u in range(100)])
    return lake


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seed"), sample([(k, n) for n in range(4) for k in (int, str)], 0, 3)
)
def test_any_sequence_of_nights_packs_as_the_whole_does(
    lake: Lake, settings: Settings, caplog: pytest.LogCaptureFixture, kind: type, seed: int
) -> None:
    """Late rows, equal moments within and between nights, new users and items, unnumbered rows."""
    caplog.set_level(logging.INFO)
    random = np.random.default_rng(seed)
    lake.create(*(pa.int64() if kind is int else pa.string() for _ in range(2)))
    for day in range(6):
        size = 400 if day == 0 else 80
        users = random.integers(0, 60 + 10 * day, size)
        items = random.integers(30 - 5 * day, 40 + 5 * day, size)
        hours = 10 * day + random.integers(0, 11, size)
        hours[:day] = random.integers(0, 10 * day + 1, day)
        triples = [
            (kind(user), kind(item), int(hour))
            for user, item, hour in zip(users, items, hours, strict=True)
        ]
        night(lake, day, triples, numbered=bool(random.integers(2)))
        model_ids = ItemIds(pa.array([kind(900), kind(31), kind(35)]))
        first = model_ids if random.integers(2) else None
        assert_same(packed(lake, settings, first=first), afresh(lake, settings, first=first))
    assert MERGED in caplog.text


def test_a_version_that_is_packed_already_is_not_read(grown: Lake, settings: Settings) -> None:
    right = packed(grown, settings)
    for file in files(grown):
        file.unlink()
    assert_same(packed(grown, settings), right)


def test_a_night_reads_its_own_files_only(grown: Lake, settings: Settings) -> None:
    packed(grown, settings)
    before = files(grown)
    # The last moment that is held, and later ones; a new user, who comes first; a new item.
    night(grown, 1, [(5, 99, 4), (5, 1, 7), (-1, 3, 0), (7, 2, 9), (7, 3, 9)])
    right = afresh(grown, settings)
    for file in before:
        file.unlink()
    assert_same(packed(grown, settings), right)
    for file in files(grown):
        file.unlink()
    assert_same(packed(grown, settings), right)


@pytest.mark.parametrize(
    ("day", "late", "expected"),
    [
        (1, [(5, 99, 2)], MERGED),
        (1, [(u, 1, 0) for u in range(5)], "5 users have late rows"),
        (-1, [(5, 99, 4)], "1 users have late rows"),  # the same moment, but ingested before
        (0, [(5, 99, 4)], "1 users have late rows"),
        (1, [(u, 1, 0) for u in range(6)], None),
    ],
)
def test_rows_that_come_late_find_their_place(
    grown: Lake,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    day: int,
    late: list[tuple[int, int, int]],
    expected: str | None,
) -> None:
    caplog.set_level(logging.INFO)
    packed(grown, settings)
    night(grown, day, [*late, (8, 3, 6)], numbered=False)
    assert_same(packed(grown, settings), afresh(grown, settings))
    assert expected in caplog.text if expected else MERGED not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda lake: lake.delete(TABLE, "user_id = 3"),
        lambda lake: lake.replace(TABLE, lake.open(TABLE).to_pyarrow_table().slice(0, 300)),
        lambda lake: (night(lake, 1, [(3, 3, 9)]), lake.open(TABLE).optimize.compact()),
        lambda lake: lake.open(TABLE).restore(0),
        lambda lake: lake.delete(TABLE, "true"),
    ],
)
def test_a_table_that_was_changed_is_packed_afresh(
    grown: Lake, settings: Settings, change: Callable[[Lake], object]
) -> None:
    packed(grown, settings)
    change(grown)
    assert_same(packed(grown, settings), afresh(grown, settings))
    night(grown, 2, [(3, 4, 12)])
    assert_same(packed(grown, settings), afresh(grown, settings))


def test_a_lake_that_got_other_ids_is_packed_afresh(grown: Lake, settings: Settings) -> None:
    packed(grown, settings)
    grown.delete(TABLE, "true")
    grown.retype(pa.string(), pa.int64())
    assert len(packed(grown, settings).users) == 0
    night(grown, 1, [("a", 1, 2), ("a", 2, 1)])
    assert_same(packed(grown, settings), afresh(grown, settings))


def test_an_older_version_leaves_the_snapshot_of_the_newest(
    grown: Lake, settings: Settings
) -> None:
    before = grown.version(TABLE)
    night(grown, 1, [(3, 4, 12)])
    right = packed(grown, settings)
    assert_same(packed(grown, settings, before), afresh(grown, settings, before))
    for file in files(grown):
        file.unlink()
    assert_same(packed(grown, settings), right)


def cut(share: float) -> Callable[[Path], object]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def wiped(path: Path) -> None:
    """As a crash leaves a file whose name was written before its content: zeros at its end."""
    size = path.stat().st_size
    os.truncate(path, size - 1024)
    os.truncate(path, size)


def foreign(path: Path) -> None:
    table = pa.table({"a": [1]})
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)


@pytest.mark.parametrize(
    "damage",
    [*(cut(share) for share in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999)), wiped, foreign, Path.unlink],
)
@pytest.mark.parametrize("grows", [False, True])
def test_a_torn_or_foreign_snapshot_is_replaced(
    grown: Lake, settings: Settings, damage: Callable[[Path], object], grows: bool
) -> None:
    packed(grown, settings)
    (snapshot,) = Path(grown.uri("packed")).iterdir()
    damage(snapshot)
    if grows:
        night(grown, 1, [(3, 4, 12)])
    right = packed(grown, settings)
    assert_same(right, afresh(grown, settings))
    for file in files(grown):
        file.unlink()
    assert_same(packed(grown, settings), right)


def test_a_snapshot_that_cannot_be_read_is_no_missing_one(grown: Lake, settings: Settings) -> None:
    packed(grown, settings)
    (snapshot,) = Path(grown.uri("packed")).iterdir()
    snapshot.unlink()
    snapshot.mkdir()
    with pytest.raises(LakeError, match=r"could not read .*interactions\.arrows.*delete it"):
        packed(grown, settings)


@pytest.mark.slow
def test_one_snapshot_stays_and_nothing_of_a_killed_run(grown: Lake, settings: Settings) -> None:
    packed(grown, settings)
    (snapshot,) = Path(grown.uri("packed")).iterdir()
    night(grown, 1, [(3, 4, 12)])
    pack_and_die = (
        "import os, sys; from recsys.lake import history_cache;"
        "from recsys.lake.tables import Lake;"
        "from recsys.lake.engine import open_duckdb; from recsys.settings import Settings;"
        "history_cache._digest = lambda *_: os.kill(os.getpid(), 9);"
        "history_cache._check = lambda _: None;"
        "lake = Lake.from_settings(settings := Settings(lake=sys.argv[1]));"
        "opened = open_duckdb(settings); con = opened.__enter__();"
        "history_cache.load_histories(lake, con, lake.version('interactions'))"
    )
    subprocess.run([sys.executable, "-c", pack_and_die, grown.root], check=False)
    assert len(list(snapshot.parent.iterdir())) == 2, "a killed run leaves what it wrote"
    packed(grown, settings)
    assert list(snapshot.parent.iterdir()) == [snapshot]


def test_who_reads_a_snapshot_reads_it_to_its_end_while_it_is_replaced(
    grown: Lake, settings: Settings
) -> None:
    packed(grown, settings)
    (snapshot,) = Path(grown.uri("packed")).iterdir()
    was = snapshot.read_bytes()
    with snapshot.open("rb") as reader:
        begun = reader.read(100)
        night(grown, 1, [(3, 4, 12)])
        packed(grown, settings)
        assert begun + reader.read() == was


def test_a_snapshot_that_cannot_be_written_is_done_without(
    grown: Lake, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    Path(grown.uri("packed")).write_text("in the way")
    assert_same(packed(grown, settings), afresh(grown, settings))
    assert "could not be written" in caplog.text


def test_the_connection_is_left_as_it_was(grown: Lake, settings: Settings) -> None:
    with open_duckdb(settings) as con:
        for day in range(1, 3):
            load_histories(grown, con, grown.version(TABLE))
            assert con.execute("show all tables").fetchall() == []
            night(grown, day, [(3, 4, 10 * day)])


@pytest.mark.slow
@pytest.mark.parametrize("grows", [False, True])
def test_no_damaged_byte_is_ever_believed(grown: Lake, settings: Settings, *, grows: bool) -> None:
    packed(grown, settings)
    snapshot = Path(grown.uri("packed", "interactions.arrows"))
    sound = snapshot.read_bytes()
    if grows:
        night(grown, 1, [(3, 4, 30)])
    right = afresh(grown, settings)
    for at in np.random.default_rng(0).integers(0, len(sound), 9).tolist():
        damaged = bytearray(sound)
        damaged[at] ^= 1 << at % 8
        snapshot.write_bytes(damaged)
        assert_same(packed(grown, settings), right)


def test_folders_named_like_columns_say_nothing(tmp_path: Path, settings: Settings) -> None:
    lake = Lake(str(tmp_path / "user_id=7" / "item_id=8" / "lake"), ObjectStorage())
    lake.create(pa.int64(), pa.int64())
    for day in range(2):
        night(lake, day, [(user, user + day, 10 * day) for user in range(20)])
        assert_same(packed(lake, settings), afresh(lake, settings))


@pytest.mark.slow
def test_awkward_paths_and_ids(tmp_path: Path, settings: Settings) -> None:
    lake = Lake(str(tmp_path / "séjour 🙂; it's #1"), ObjectStorage())
    lake.create(pa.string(), pa.string())
    for day in range(3):
        night(lake, day, [("a\n;", f"x'{day}", day), ("🙂", 'y"', day)])
        assert_same(packed(lake, settings), afresh(lake, settings))


@pytest.mark.slow
def test_a_lake_on_s3_keeps_no_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="lake")
        ours = Settings(lake="s3://lake/here", s3=ObjectStorage(endpoint_url=endpoint))
        lake = Lake.from_settings(ours)
        lake.create(pa.int64(), pa.int64())
        night(lake, 0, [(1, 2, 3), (1, 1, 2), (0, 1, 1)])
        assert_same(packed(lake, ours), afresh(lake, ours))
        stored = servers.client(endpoint).list_objects_v2(Bucket="lake")["Contents"]
        assert not [entry["Key"] for entry in stored if "packed" in entry["Key"]]
