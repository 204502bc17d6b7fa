"""kill -9 at any moment of a night loses nothing and publishes nothing half."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import pytest

from tests.flows import nights

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

MOMENTS = 10
DAYS = ("2026-01-02", "2026-01-03")


class World(NamedTuple):
    source: Path
    lake: Path
    undisturbed: dict[str, list[tuple[Any, ...]]]
    files: tuple[int, int]  # before the night, after it
    api: str


def files(root: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(root))


def watch(night: BaseProcess, lake: Path, until: int | None = None) -> None:
    """Ask the catalog again and again; kill the night when the lake has ``until`` files."""
    asked = 0.0
    while night.is_alive():
        if until is not None and files(lake) >= until:
            night.kill()
            night.join()
        elif time.monotonic() - asked > 0.1:
            assert_complete(lake / "catalog.duckdb")
            asked = time.monotonic()
        time.sleep(0.001)
    assert_complete(lake / "catalog.duckdb")


def assert_complete(catalog: Path) -> None:
    """The newest lists are one whole run: every user, every rank, one date, one run."""
    with duckdb.connect(str(catalog), read_only=True) as con:
        (found,) = con.execute(
            "select count(*), count(distinct user_id), count(distinct run_id), "
            "count(distinct run_date), count(distinct interactions_version), max(rank) "
            "from latest_recommendations"
        ).fetchall()
        stored = con.execute("select count(*) from recommendations").fetchall()[0][0]
    assert found == (nights.USERS * nights.K, nights.USERS, 1, 1, 1, nights.K)
    assert stored % (nights.USERS * nights.K) == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> World:
    """A lake after one night and a source that has gone on since; how the next night ends."""
    home = tmp_path_factory.mktemp("world")
    source, lake = home / "source.duckdb", home / "lake"
    nights.make_source(source)
    nights.run_night(nights.environment(source, lake, prefect_api), DAYS[0])
    nights.next_day(source)
    whole = shutil.copytree(lake, home / "whole")
    env = nights.environment(source, whole, prefect_api)
    night = nights.start_night(env, DAYS[1])
    watch(night, whole)
    assert night.exitcode == 0, nights.said(env).read_text()
    return World(source, lake, nights.contents(whole), (files(lake), files(whole)), prefect_api)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_night_run_again_ends_as_an_undisturbed_one(
    world: World, tmp_path: Path, moment: int
) -> None:
    lake = shutil.copytree(world.lake, tmp_path / "lake")
    env = nights.environment(world.source, lake, world.api)
    night = nights.start_night(env, DAYS[1])
    first, last = world.files[0] + 1, world.files[1]
    watch(night, lake, until=first + moment * (last - first) // (MOMENTS - 1))
    assert night.exitcode == -signal.SIGKILL
    nights.run_night(env, DAYS[1])
    assert_complete(lake / "catalog.duckdb")
    found = nights.contents(lake)
    for table, rows in world.undisturbed.items():
        assert found[table] == rows, table


def test_a_second_night_on_the_same_inputs_changes_nothing(world: World, tmp_path: Path) -> None:
    lake = shutil.copytree(world.lake, tmp_path / "lake")
    env = nights.environment(world.source, lake, world.api)
    nights.run_night(env, DAYS[1])
    logs = {
        path.name: len(list((path / "_delta_log").glob("*.json")))
        for path in lake.iterdir()
        if (path / "_delta_log").exists()
    }
    nights.run_night(env, DAYS[1])
    again = {name: len(list((lake / name / "_delta_log").glob("*.json"))) for name in logs}
    assert again == {**logs, "runs": logs["runs"] + 1}
