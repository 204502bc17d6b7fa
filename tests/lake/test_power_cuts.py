"""A machine that stops while it writes costs a local lake the newest commit at most."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest

from recsys import columns
from recsys.lake.maintenance import remove_leftovers
from recsys.lake.tables import Lake
from tests import lakes

TABLE = columns.INTERACTIONS


@pytest.fixture
def filled(lake: Lake) -> Lake:
    for day in range(3):
        lakes.fill(lake, {1: [10 + day]}, day=day)
    return lake


def log_of(lake: Lake) -> Path:
    return Path(lake.uri(TABLE, "_delta_log"))


def newest_entry(lake: Lake) -> Path:
    return max(log_of(lake).glob("*.json"))


def newest_data(lake: Lake) -> Path:
    files = pa.table(lake.open(TABLE).get_add_actions(flatten=True)).to_pylist()
    newest = max(files, key=lambda file: file["modification_time"])
    return Path(lake.uri(TABLE, unquote(newest["path"])))


def empty(file: Path) -> None:
    os.truncate(file, 0)


def cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def cut_line(file: Path) -> None:
    """The last line and the end of the line before it."""
    file.write_bytes(b"\n".join(file.read_bytes().splitlines()[:-1]))


def leave_lock(lake: Lake) -> None:
    """As a run does that did not end."""
    Path(lake.uri(".lock")).write_text("nightly r-1, process 17")


def items(lake: Lake) -> list[int]:
    return sorted(lake.rows(TABLE, ["item_id"])["item_id"].to_pylist())


def test_a_commit_is_on_the_disk_when_it_is_made(
    filled: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = [], os.fsync

    def told(file: int) -> None:
        fsync(file)
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")))

    monkeypatch.setattr(os, "fsync", told)
    lakes.fill(filled, {1: [13]}, day=3)
    files = [newest_data(filled), newest_entry(filled)]
    assert [file for file in synced if file.is_file()][:2] == files
    assert {file.parent for file in files} <= set(synced)


@pytest.mark.parametrize("part", [newest_entry, newest_data])
@pytest.mark.parametrize("damage", [empty, cut_off, cut_line, Path.unlink])
def test_the_next_run_takes_a_damaged_commit_back(filled: Lake, part, damage) -> None:
    if damage is Path.unlink and part is newest_entry:
        pytest.skip("a commit without a name was not made")
    if damage is cut_line and part is newest_data:
        pytest.skip("it has no lines")
    version = filled.version(TABLE)
    damage(part(filled))
    leave_lock(filled)
    with filled.write_lock():
        assert (filled.version(TABLE), items(filled)) == (version - 1, [10, 11])
        lakes.fill(filled, {1: [12]}, day=2)
    assert (filled.version(TABLE), items(filled)) == (version, [10, 11, 12])
    remove_leftovers(filled, dry_run=False)
    assert not [file for file in log_of(filled).iterdir() if file.suffix == ".tmp"]


@pytest.mark.parametrize("damage", [empty, cut_off])
@pytest.mark.parametrize("name", ["*.checkpoint.parquet", "_last_checkpoint"])
def test_the_next_run_goes_without_a_damaged_checkpoint(filled: Lake, name: str, damage) -> None:
    for day in range(3, 8):
        lakes.fill(filled, {1: [10 + day]}, day=day)
    damage(max(log_of(filled).glob(name)))
    leave_lock(filled)
    with filled.write_lock():
        assert items(filled) == [*range(10, 18)]
        lakes.fill(filled, {1: [18]}, day=8)
    assert items(filled) == [*range(10, 19)]


def test_what_was_damaged_after_a_good_end_is_left_to_the_count_of_rows(filled: Lake) -> None:
    with filled.write_lock():
        pass
    empty(newest_entry(filled))
    with filled.write_lock():
        assert newest_entry(filled).stat().st_size == 0
