from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.account import current_account
from recsys.errors import ConfigurationError, GateError, LakeError
from recsys.histories import ItemIds
from recsys.lake.bound import Bound
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.lists.blocks import ListBlock
from recsys.lists.editions import editions_of
from recsys.lists.recommend import RecommendResult, recommend
from recsys.lists.staging import run_behind
from recsys.model.presets import resolve
from recsys.model.recommender import Recommender
from recsys.operations.summary import list_summary
from recsys.registry.models import find_champion, load_model, save_model
from recsys.registry.promote import register_model
from recsys.settings import Recommending, Settings
from recsys.version import code_version
from tests import lakes

DAY = date(2026, 1, 2)
HISTORIES: dict[Any, list[Any]] = {
    user: [(user * 3 + step) % 17 + 100 for step in range(1 + user % 6)] for user in range(1, 31)
}


def untrained(
    lake: Lake,
    items: list[Any],
    model_id: str = "m-test",
    config: dict[str, Any] | None = None,
    judged_against: str | None = None,
) -> None:
    """A champion with random weights that knows these items."""
    preset = resolve("best", {"width": 16, "blocks": 1, "max_length": 8})
    torch.manual_seed(0)
    model = Recommender(preset.model, len(items)).eval()
    save_model(lake, model_id, model, ItemIds(pa.array(items)), {}, "")
    row = lakes.model_row(model_id, config=json.dumps(config or {}))
    register_model(lake, row, judged_against)


def published_rows(lake: Lake, settings: Settings) -> list[tuple[Any, ...]]:
    """The rows of the current editions."""
    with open_duckdb(settings) as con:
        lake.view(con, "recommendations")
        lake.view(con, "editions")
        return con.sql(
            "select user_id, rank, item_id, score, reason from recommendations "
            "semi join (from editions where status = 'current') using (run_date, edition) "
            "order by user_id, rank"
        ).fetchall()


def run(
    lake: Lake, settings: Settings, replace: str | None = None, **changes: Any
) -> RecommendResult:
    """Make the lists of DAY with the champion of now."""
    return recommend(
        lake,
        settings,
        Recommending(**{"k": 5, **changes}),
        run_date=DAY,
        run_id="run",
        bound=Bound.of(settings, DAY, "now"),
        replace_why=replace,
    )


def by_user(rows: list[tuple[Any, ...]]) -> dict[Any, list[Any]]:
    lists: dict[Any, list[Any]] = {}
    for user, _, item, _, _ in rows:
        lists.setdefault(user, []).append(item)
    return lists


@pytest.mark.slow
def test_every_user_gets_k_items_that_they_have_not_had(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 117)))
    result = run(lake, settings)
    rows = published_rows(lake, settings)
    assert (result.users, result.rows, result.popular_users) == (30, 150, 0)
    assert result.status == "published"
    listed = by_user(rows)
    assert set(listed) == set(HISTORIES)
    for user, items in listed.items():
        assert len(set(items)) == 5
        assert not set(items) & set(HISTORIES[user])
    assert [rank for _, rank, *_ in rows] == [1, 2, 3, 4, 5] * 30
    assert {reason for *_, reason in rows} == {"model"}


@pytest.mark.slow
@pytest.mark.parametrize("block", [7, 4096])
def test_the_size_of_a_block_changes_no_list(lake: Lake, settings: Settings, block: int) -> None:
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 117)))
    run(lake, settings, block=1, seed=3)
    one_by_one = by_user(published_rows(lake, settings))
    assert run(lake, settings, block=block, seed=3).status == "unchanged", "a block is no input"
    lake.delete("recommendations", "true")
    assert run(lake, settings, block=block, seed=3).status == "published"
    assert by_user(published_rows(lake, settings)) == one_by_one


@pytest.mark.slow
def test_the_same_night_twice_changes_nothing(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 117)))
    first = run(lake, settings)
    rows = published_rows(lake, settings)
    again = run(lake, settings)
    assert (again.status, again.version, again.rows) == ("unchanged", first.version, first.rows)
    lakes.fill(lake, {31: [101]}, batch_id="later", day=1)
    third = run(lake, settings)
    assert (third.status, third.users, third.edition) == ("stands", 30, 1)
    assert third.why == (
        "edition 1 of 2026-01-02 stands as it was served, from other inputs (interactions_version);"
        " nothing was published. Give --replace and a reason to publish another edition"
    )
    assert published_rows(lake, settings) == rows
    third = run(lake, settings, replace="user 31 was missing")
    assert (third.status, third.users, third.edition) == ("published", 31, 2)
    assert run(lake, settings, replace="again").status == "unchanged"
    same_users = [row for row in published_rows(lake, settings) if row[0] != 31]
    assert [row[:3] for row in same_users] == [row[:3] for row in rows]


@pytest.mark.slow
def test_lists_that_somebody_changed_are_made_again(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    first = run(lake, settings)
    lake.delete("recommendations", "user_id = 3")
    second = run(lake, settings)
    assert (second.status, len(published_rows(lake, settings))) == ("published", first.rows)
    run(lake, settings, k=3, replace="shorter")
    lake.open("recommendations").restore(second.version)
    third = run(lake, settings, k=3)
    assert (third.status, len(published_rows(lake, settings))) == ("published", third.rows)
    lake.open("recommendations").optimize.compact()
    assert run(lake, settings, k=3).status == "unchanged"


def test_a_run_date_in_the_future_is_refused(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    tomorrow = settings.run_date() + timedelta(days=1)
    assert recommend(lake, settings, run_date=tomorrow, run_id="run").status == "published"
    with pytest.raises(ConfigurationError, match="lies in the future"):
        recommend(lake, settings, run_date=tomorrow + timedelta(days=2), run_id="run")


@pytest.mark.slow
def test_popularity_serves_whom_the_model_cannot(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [10, 11, 12], 2: [11, 12], 3: [90], 4: [12, 90, 91]})
    untrained(lake, [10, 11, 12, 13])
    result = run(lake, settings, k=3)
    rows = published_rows(lake, settings)
    # Item 13 was only ever in the model: nobody has interacted with it, so nobody is shown it.
    assert by_user(rows) == {
        1: [90, 91],
        2: [10, 90, 91],
        3: [12, 11, 10],
        4: [10, 11] if by_user(rows)[4][0] == 10 else [11, 10],
    }
    reasons = {(user, item): reason for user, _, item, _, reason in rows}
    assert reasons[2, 10] == reasons[4, 10] == "model"
    assert {reasons[1, 90], reasons[2, 91], reasons[3, 12]} == {"popular"}
    assert result.popular_users == 2
    assert all(np.isfinite(score) for *_, score, _ in rows)


@pytest.mark.slow
def test_new_items_are_ranked_by_who_took_them_up_to_their_share(
    lake: Lake, settings: Settings
) -> None:
    """Users with an even number took item 90 after what the model knows; nobody 91 but user 40."""
    histories = {
        user: [*items, 90] if user % 2 == 0 else items for user, items in HISTORIES.items()
    }
    lakes.fill(lake, {**histories, 40: [91], 41: [90]})
    untrained(lake, list(range(100, 117)))
    today = published_rows(lake, settings) if run(lake, settings).rows else []
    assert {reason for *_, reason in today} == {"model", "popular"}
    lake.delete("recommendations", "true")
    lake.delete("editions", "true")
    result = run(lake, settings, new_items_share=0.25, k=5)
    rows = published_rows(lake, settings)
    by_reason = {reason: {row[2] for row in rows if row[4] == reason} for *_, reason in rows}
    assert by_reason["model-new-item"] == {90}, "of 91 nothing is known: nobody had anything before"
    assert by_reason["model"] <= set(range(100, 117))
    listed = {row[0] for row in rows if row[4] == "model-new-item"}
    assert listed
    assert not {user for user in listed if user in HISTORIES and user % 2 == 0}, "who has had it"
    # User 41 has had nothing but the new item, which is an input now; popularity serves user 40.
    reasons = {user: {row[4] for row in rows if row[0] == user} for user in (40, 41)}
    assert reasons == {40: {"popular"}, 41: {"model"}}
    assert result.popular_users == 1


def confidences(lake: Lake, settings: Settings) -> dict[Any, tuple[str, float | None]]:
    """Each user's reason and confidence, which all rows of a list share."""
    with open_duckdb(settings) as con:
        lake.view(con, "recommendations")
        rows = con.sql(
            "select distinct user_id, reason, confidence from recommendations"
        ).fetchall()
    assert len(rows) == len({user for user, *_ in rows})
    return {user: (reason, confidence) for user, reason, confidence in rows}


@pytest.mark.slow
def test_a_list_says_how_sure_it_is_and_popularity_takes_the_place_of_an_unsure_one(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {**HISTORIES, 31: [90], 32: [90]})  # 90 is new to the model
    calibration = {"offset": 0.2, "slope": 1.0, "of_length": -0.5}
    untrained(lake, list(range(100, 117)), config={"confidence": calibration})
    run(lake, settings)
    model_rows = [row for row in published_rows(lake, settings) if row[4] == "model"]
    sure = confidences(lake, settings)
    assert {sure[user] for user in (31, 32)} == {("popular", None)}
    for user in HISTORIES:
        share = sum(np.exp(score) for owner, _, _, score, _ in model_rows if owner == user)
        odds = share / (1 - share) * np.exp(0.2) * (1 + len(HISTORIES[user])) ** -0.5
        assert sure[user] == ("model", pytest.approx(odds / (1 + odds), abs=1e-5))
    least = float(np.median([confidence for _, confidence in sure.values() if confidence]))
    lake.delete("recommendations", "true")
    lake.delete("editions", "true")
    result = run(lake, settings, min_confidence=least)
    now = confidences(lake, settings)
    for user in HISTORIES:
        unsure = sure[user][1] < least
        assert now[user] == (("popular-low-confidence", None) if unsure else sure[user])
    assert now[31] == ("popular", None)
    assert result.popular_users == 17


def test_popularity_serves_everyone_while_there_is_no_champion(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {"a": ["x", "y"], "b": ["y"], "c": ["y", "z'"]})
    result = run(lake, settings)
    assert (result.model_id, result.popular_users) == (None, 3)
    assert by_user(published_rows(lake, settings)) == {"a": ["z'"], "b": ["x", "z'"], "c": ["x"]}


@pytest.mark.slow
def test_items_marked_not_eligible_are_never_shown(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 117)))
    lakes.write(
        lake,
        "items",
        [{"item_id": item, "eligible": item % 2 == 0} for item in range(100, 117)],
    )
    run(lake, settings)
    assert {item % 2 for _, _, item, _, _ in published_rows(lake, settings)} == {0}


@pytest.mark.slow
def test_an_item_that_the_table_does_not_know_is_not_shown(lake: Lake, settings: Settings) -> None:
    """Nor one of which it does not say that it may be; the night tells how many."""
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 117)))
    known = {100: True, 101: True, 102: None, 103: False, 104: None, 105: True}
    rows = [{"item_id": item, "eligible": eligible} for item, eligible in known.items()]
    lakes.write(lake, "items", rows)
    result = run(lake, settings)
    assert {item for _, _, item, _, _ in published_rows(lake, settings)} == {100, 101, 105}
    assert (result.items_not_in_items, result.items_not_eligible) == (11, 3)
    told = list_summary(asdict(result))
    assert "of the items with interactions, 11 are missing in `items` and 3 are not marked" in told


@pytest.mark.slow
def test_a_catalogue_without_an_eligible_item_keeps_the_previous_lists(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {1: [10, 11], 2: [10]})
    run(lake, settings)
    before = published_rows(lake, settings)
    lakes.write(lake, "items", [{"item_id": item, "eligible": False} for item in (10, 11)])
    with pytest.raises(GateError, match=r"no item may be shown.*2 are not eligible in `items`"):
        run(lake, settings, replace="new items")
    assert published_rows(lake, settings) == before


@pytest.mark.slow
def test_seen_items_may_be_asked_for(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [10, 11], 2: [10]})
    untrained(lake, [10, 11])
    run(lake, settings, seen="include")
    assert {
        user: set(items) for user, items in by_user(published_rows(lake, settings)).items()
    } == {
        1: {10, 11},
        2: {10, 11},
    }


@pytest.mark.slow
def test_one_item_in_the_catalogue_gives_lists_of_what_is_left(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {1: [10], 2: [10]})
    untrained(lake, [10])
    empty = run(lake, settings)
    assert (empty.rows, empty.users, empty.without_list) == (0, 0, 2)
    assert empty.users_without_list == [1, 2]
    lakes.fill(lake, {3: [11]}, batch_id="later", day=1)
    run(lake, settings, k=50, replace="there is another item")
    assert by_user(published_rows(lake, settings)) == {1: [11], 2: [11], 3: [10]}


@pytest.mark.slow
def test_lists_of_a_broken_model_are_not_published(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 117)))
    run(lake, settings)
    before = lake.version("recommendations")
    champion = find_champion(lake)
    assert champion
    model = load_model(lake, champion)
    with torch.no_grad():
        next(iter(model.recommender.parameters())).fill_(float("nan"))
    save_model(lake, "m-broken", model.recommender, model.items, {}, "")
    register_model(lake, lakes.model_row("m-broken"), champion.model_id)
    with pytest.raises(LakeError, match="holds numbers that are not finite; train again"):
        run(lake, settings, replace="a better model")
    assert lake.version("recommendations") == before


def test_a_lake_without_interactions_says_what_to_do(lake: Lake, settings: Settings) -> None:
    with pytest.raises(LakeError, match="run `recsys ingest` first"):
        run(lake, settings)
    lake.create(pa.int64(), pa.int64())
    with pytest.raises(GateError, match="`interactions` is empty; run `recsys ingest`"):
        run(lake, settings)


def test_the_result_of_every_check_is_written(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    run(lake, settings)
    with open_duckdb(settings) as con:
        lake.view(con, "quality_results")
        results = con.sql(
            "select subject, suite, status, count(distinct rule) from quality_results group by all"
        ).fetchall()
    assert results == [("recommendations 2026-01-02", "recommendations", "passed", 11)]


def test_the_edition_says_what_its_lists_were_made_from(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [10, 11], 2: [10]})
    result = run(lake, settings, k=3, block=7)
    (row,) = editions_of(lake, DAY)
    assert (row.status, row.users, row.rows, row.popular_users, row.without_list) == (
        "current",
        1,
        1,
        1,
        1,
    )
    assert (row.data_until, row.as_of) == (datetime(2026, 1, 3, tzinfo=UTC), None)
    assert (row.run_id, row.who, row.why) == ("run", current_account(), None)
    assert json.loads(row.inputs or "") == {
        "model_id": None,
        "interactions_version": result.interactions_version,
        "data_until": "2026-01-03T00:00:00+00:00",
        "as_of": None,
        "items_version": lake.version("items"),
        "k": 3,
        "steps": None,
        "min_confidence": 0.0,
        "popularity_half_life": None,
        "new_items_share": 0.0,
        "seed": 0,
        "seen": "exclude",
        "code_version": code_version(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["blocks._ROWS", "ranking._USERS", "staging._BATCH"])
def test_working_in_small_pieces_changes_no_list(
    lake: Lake, settings: Settings, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three items are new to the model, so that histories are copied without them."""
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 114)))
    run(lake, settings, k=15)
    whole = published_rows(lake, settings)
    assert {reason for *_, reason in whole} == {"model", "popular"}
    lake.delete("recommendations", "true")
    monkeypatch.setattr(f"recsys.lists.{bound}", 11)
    day = date(2026, 1, 3)
    everything = Bound.of(settings, day, "now")
    recommending = Recommending(k=15, block=8)
    recommend(lake, settings, recommending, run_date=day, run_id="run", bound=everything)
    assert published_rows(lake, settings) == whole


@pytest.mark.slow
def test_lists_that_break_a_rule_are_not_published(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakes.fill(lake, HISTORIES)
    run(lake, settings)
    rows, before = published_rows(lake, settings), lake.version("recommendations")
    lakes.fill(lake, {31: [101]}, batch_id="later", day=1)
    whole = ListBlock.rows
    monkeypatch.setattr(
        ListBlock, "rows", lambda *arguments: whole(*arguments)[1:]
    )  # a defect of ours
    with pytest.raises(GateError, match=r"or all that are left: 1 violations; ranks run"):
        run(lake, settings, replace="user 31")
    assert (published_rows(lake, settings), lake.version("recommendations")) == (rows, before)
    with open_duckdb(settings) as con:
        lake.view(con, "quality_results")
        failed = con.sql("select rule from quality_results where status = 'failed'").fetchall()
    assert sorted(failed) == [
        ("every user gets k items, or all that are left",),
        ("ranks run from 1 without a gap",),
    ]


def test_what_fails_behind_stops_what_is_ahead() -> None:
    began = 0

    def endless() -> Iterator[int]:
        nonlocal began
        while True:
            began += 1
            yield began

    def work(thing: int) -> None:
        if thing == 3:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run_behind(work, endless())
    assert began <= 7


def test_what_fails_ahead_ends_what_is_behind() -> None:
    done: list[int] = []

    def three() -> Iterator[int]:
        yield from (1, 2, 3)
        raise GateError("the model broke")

    with pytest.raises(GateError, match="the model broke"):
        run_behind(done.append, three())
    assert done == [1, 2, 3]
