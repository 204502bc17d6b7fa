"""A night that is killed while it scores goes on behind the users that it had scored."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys.lake import object_store
from recsys.lake.maintenance import SCORED, remove_leftovers
from recsys.lake.tables import Lake
from recsys.lists import ranking
from recsys.lists.popularity import Popular
from recsys.settings import ObjectStorage, Settings
from tests import lakes, servers
from tests.lists.test_recommend import HISTORIES, published_rows, run, untrained

BLOCK = 4
KILLED_IN = 4  # which block, after it was scored


class KilledError(BaseException):
    """The night was killed."""


@pytest.fixture(params=["local", "s3"])
def places(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Settings]]:
    """The settings of two lakes with the same rows and champion."""
    if request.param == "local":
        yield [at_once(Settings(lake=str(tmp_path / name), device="cpu")) for name in "ab"]
        return
    servers.use_credentials(monkeypatch)
    with servers.moto_s3(tmp_path) as endpoint:
        servers.client(endpoint).create_bucket(Bucket="lake")
        storage = ObjectStorage(endpoint_url=endpoint)
        made = (Settings(lake=f"s3://lake/{name}", s3=storage, device="cpu") for name in "ab")
        yield [at_once(settings) for settings in made]


@pytest.fixture
def scored_users(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with the users of each call of the model."""
    counts: list[int] = []
    real = ranking.top_k

    def counted(*arguments: Any, **options: Any) -> Iterator[Any]:
        for block in real(*arguments, **options):
            counts.append(len(block.items))
            yield block

    monkeypatch.setattr(ranking, "top_k", counted)
    return counts


def prepared(settings: Settings) -> Lake:
    lake = Lake.from_settings(settings)
    lakes.fill(lake, HISTORIES)
    # It knows few items: some histories are copied, and some lists are filled up by popularity.
    untrained(lake, [*range(100, 106)])
    return lake


def at_once(settings: Settings) -> Settings:
    """Return the settings with which every block is saved."""
    training = settings.training.changed({"save_every": timedelta(0)})
    return settings.model_copy(update={"training": training})


def kill(lake: Lake, settings: Settings, counts: list[int]) -> None:
    """Run a night that dies with its fourth block."""
    counts.clear()
    with pytest.MonkeyPatch.context() as patch:
        real = Popular.fill

        def fill(*arguments: Any, **options: Any) -> None:
            if len(counts) == KILLED_IN:
                raise KilledError
            real(*arguments, **options)

        patch.setattr(Popular, "fill", fill)
        with pytest.raises(KilledError):
            run(lake, settings, block=BLOCK)
    counts.clear()


def left(lake: Lake) -> list[str]:
    if lake.is_local:
        return [str(path) for path in Path(lake.root).glob(f"{SCORED}/**/*") if path.is_file()]
    return [stored.key for stored in object_store.find(lake.uri(SCORED, "**"), lake.storage)]


@pytest.mark.slow
def test_a_killed_night_goes_on_and_its_lists_are_those_of_an_unbroken_one(
    places: list[Settings], scored_users: list[int]
) -> None:
    unbroken, killed = map(prepared, places)
    run(unbroken, places[0], block=BLOCK)
    kill(killed, places[1], scored_users)
    assert len(left(killed)) == KILLED_IN
    result = run(killed, places[1], block=BLOCK)
    assert result.users == len(HISTORIES)
    assert sum(scored_users) == len(HISTORIES) - BLOCK * KILLED_IN, (
        "those before are not scored again"
    )
    assert published_rows(killed, places[1]) == published_rows(unbroken, places[0])
    assert not left(killed)
    assert not left(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["rows", "settings", "champion", "damage"])
def test_what_was_scored_from_other_inputs_is_not_used(
    lake: Lake, settings: Settings, scored_users: list[int], change: str
) -> None:
    prepared(settings)
    settings = at_once(settings)
    kill(lake, settings, scored_users)
    changes: dict[str, Any] = {}
    if change == "rows":
        lakes.fill(lake, {31: [100]})
    elif change == "settings":
        changes["k"] = 4
    elif change == "champion":
        untrained(lake, [*range(100, 107)], "m-other", judged_against="m-test")
    else:
        first, *_ = sorted(left(lake))
        Path(first).write_bytes(Path(first).read_bytes()[:-8])
    run(lake, settings, block=BLOCK, **changes)
    assert sum(scored_users) == len(HISTORIES) + (change == "rows")
    assert not left(lake)


@pytest.mark.slow
def test_scores_that_nobody_goes_on_with_are_removed_by_maintenance(
    places: list[Settings], scored_users: list[int]
) -> None:
    lake = prepared(places[0])
    kill(lake, places[0], scored_users)
    assert len(remove_leftovers(lake, dry_run=True)) == (1 if lake.is_local else KILLED_IN)
    assert len(left(lake)) == KILLED_IN
    remove_leftovers(lake, dry_run=False)
    assert not left(lake)
    assert not published_rows(lake, places[0])
    run(lake, places[0], block=BLOCK)
    assert sum(scored_users) == len(HISTORIES)


def test_a_night_that_is_done_soon_keeps_nothing(
    lake: Lake, settings: Settings, scored_users: list[int]
) -> None:
    prepared(settings)
    kill(lake, settings, scored_users)
    assert not left(lake)
