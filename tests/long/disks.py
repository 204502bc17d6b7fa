"""Whole commands on a lake whose disk is full, or can only be read; then run again, and compared.

Each place is a small file system of its own, in memory.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb

from recsys import columns
from recsys.lake.maintenance import remove_leftovers
from recsys.lake.row_counts import check_row_counts
from recsys.lake.tables import Lake
from recsys.settings import ObjectStorage
from tests.flows import nights
from tests.long import kills
from tests.long.faults import UNFIT, Said, check_equal, run_command
from tests.small_disk import full, read_only, small_disk

DiskFault = Literal["full lake", "full temporary folder", "read-only lake"]
WORKS = ("ingest", "train", "recommend", "maintain", "erase", "backfill")
_ROOM = (1 << 10, 1 << 20)  # bytes that are left on a full one


@dataclass
class Disks:
    """A lake of one night on a disk, and temporary folders on another.

    Attributes:
        before: the lake that commands begin with, elsewhere.
        lake: where it lies for a command.
        temporary: where commands keep temporary files.
        env: the variables of commands.
        undisturbed: command -> what it says, and the lake's contents after it.
    """

    before: Path
    lake: Path
    temporary: Path
    env: dict[str, str]
    undisturbed: dict[str, tuple[Said, dict[str, list[Any]]]] = field(default_factory=dict)

    def run(self, work: str) -> Said:
        return run_command(kills.COMMANDS[work], self.env, self.temporary)

    def restore(self) -> None:
        shutil.rmtree(self.lake, ignore_errors=True)
        shutil.copytree(self.before, self.lake)


@contextmanager
def make_disks(folder: Path) -> Iterator[Disks]:
    """Mount two small disks, and make a lake of one night and a second day of events."""
    source, before = folder / "source.duckdb", folder / "before"
    nights.make_source(source)
    with small_disk(folder / "disk") as disk, small_disk(folder / "temporary") as temporary:
        lake = disk / "lake"
        env = {
            name: value
            for name, value in nights.environment(source, lake, "").items()
            if name.startswith("RECSYS_")
        }
        env["RECSYS_MAINTENANCE"] = '{"retention": 0, "keep_lists": "P1D"}'
        disks = Disks(before, lake, temporary, env)
        lists = ["recommend", "--as-of", "now", "--run-date", kills.DAYS[0]]
        for arguments in (["ingest"], kills.COMMANDS["train"], lists):
            said = run_command(arguments, env, disks.temporary)
            assert said.code == 0 or "rejected" in said.text, said.text
        nights.next_day(source)
        shutil.copytree(lake, before)
        yield disks


def disturb(disks: Disks, work: str, fault: DiskFault, seed: int) -> bool:
    """Run a command on a disk that fails, and again; say whether it was refused."""
    if work not in disks.undisturbed:
        disks.restore()
        said = disks.run(work)
        assert said.code == 0 or "rejected" in said.text, said.text
        disks.undisturbed[work] = said, kills.contents(disks.lake)
    undisturbed, contents = disks.undisturbed[work]
    disks.restore()
    place = disks.temporary if fault == "full temporary folder" else disks.lake.parent
    with _failing(place, fault, seed) as how:
        said = disks.run(work)
        for reader in (["sql", "select max(item_id) from interactions"], ["models"]):
            assert run_command(reader, disks.env, disks.temporary).code == 0
        _check_readers(disks)
    case = f"{work}, {fault} {how}:\n{said.text}"
    assert not UNFIT.search(said.text.replace("disk", "")), case
    if said.refusal:
        assert said.code == 1, case
        assert str(place) in said.refusal, case
        assert "has room" in said.refusal, case
    else:
        assert said.code == undisturbed.code, case
    again = disks.run(work)
    case = f"{case}\nand again, exit code {again.code}:\n{again.text}"
    if said.refusal:
        assert (again.code, again.refusal) == (undisturbed.code, ""), case
    _check_readers(disks)
    found = kills.contents(disks.lake)
    check_equal(found, contents, case)
    lake = Lake(str(disks.lake), ObjectStorage())
    check_row_counts(lake)
    assert "running" not in lake.rows(columns.RUNS, ["status"])["status"].to_pylist(), case
    assert not list(disks.temporary.glob("recsys*")), case
    remove_leftovers(lake, dry_run=False)
    assert not remove_leftovers(lake, dry_run=True), case
    return bool(said.refusal)


@contextmanager
def _failing(place: Path, fault: DiskFault, seed: int) -> Iterator[str]:
    if fault == "read-only lake":
        with read_only(place):
            yield ""
        return
    draw = random.Random(f"{place.name} {seed}")  # noqa: S311 - a size, not a secret
    room = int(_ROOM[0] * (_ROOM[1] / _ROOM[0]) ** draw.random())
    with full(place, room):
        yield f"but for {room} bytes"


def _check_readers(disks: Disks) -> None:
    with duckdb.connect(str(disks.lake / "catalog.duckdb"), read_only=True) as con:
        assert con.execute(kills.WHOLE_LISTS).fetchall() == [(True, 1, 1, nights.K)]
