"""`[events]`: what is learnt from, what the model reads, and what counts as had."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from recsys.errors import GateError
from recsys.evaluation.protocol import ranks
from recsys.evaluation.splits import SeenWindow, leave_one_out
from recsys.histories import HAD, INPUT, TARGET, Histories, Packed
from recsys.lake.bound import Bound
from recsys.lake.engine import open_duckdb
from recsys.lake.history_cache import load_histories
from recsys.lake.packing import pack
from recsys.lake.roles import Roles
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.model.runtime import Runtime
from recsys.model.scoring import top_k
from recsys.registry.models import find_model
from recsys.registry.recipe import resolve_recipe
from recsys.registry.retrain import train
from recsys.settings import Events, Recommending, Settings, Training
from recsys.training.batches import batches, training_rows
from tests import lakes
from tests.lists.test_recommend import DAY, by_user, published_rows, untrained

Row = tuple[Any, int, str | None, float | None, float]
"""user, item, event, value, days before DAY"""

SHOP: list[Row] = [
    (1, 10, "view", None, 9),
    (1, 10, "purchase", 2.0, 8),
    (1, 11, "view", None, 7),
    (1, 12, "purchase", None, 3),
    (1, 13, "return", None, 2),
    (2, 11, "view", None, 5),
    (2, 10, "purchase", 9.0, 4),
    (2, 14, None, 9.0, 1),
    (3, 13, "return", 1.0, 6),
]


def fill(lake: Lake, rows: list[Row], day: int = 0) -> None:
    lake.create(lakes.id_type(1), lakes.id_type(1))
    end = lakes.START + timedelta(days=1)
    lakes.write(
        lake,
        "interactions",
        [
            {"user_id": user, "item_id": item, "event": event, "value": value}
            | {"timestamp": end - timedelta(days=ago), "source_row": row, "batch_id": f"b{day}"}
            | {"ingested_at": lakes.START + timedelta(minutes=day)}
            for row, (user, item, event, value, ago) in enumerate(rows)
        ],
    )


def with_roles(lake: Lake, settings: Settings, roles: Roles | None) -> Packed:
    with open_duckdb(settings) as con:
        return load_histories(lake, con, lake.version("interactions"), roles=roles)


def afresh(lake: Lake, settings: Settings, roles: Roles | None) -> Packed:
    with open_duckdb(settings) as con:
        lake.view(con, "interactions")
        return pack(con, roles=roles)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (Events(targets=("purchase",)), [6, 7, 6, 7, 6, 6, 7, 6, 6]),
        (Events(targets=("purchase",), context=("view",)), [6, 7, 6, 7, 4, 6, 7, 4, 4]),
        (Events(targets=("purchase",), context=(), min_value=3), [4, 6, 4, 6, 4, 4, 7, 4, 4]),
        (Events(min_value=2), [6, 7, 6, 6, 6, 6, 7, 7, 6]),
        (Events(seen_events=("purchase", "return")), [3, 7, 3, 7, 7, 3, 7, 3, 7]),
        (Events(seen_window=timedelta(days=4)), [3, 3, 3, 7, 7, 3, 7, 7, 3]),
    ],
)
def test_an_interaction_has_the_roles_of_its_event_its_value_and_its_time(
    lake: Lake, settings: Settings, events: Events, expected: list[int]
) -> None:
    fill(lake, SHOP)
    roles = Roles.until(events, lakes.START + timedelta(days=1))
    packed = with_roles(lake, settings, roles)
    assert packed.histories.roles is not None
    assert packed.histories.roles.tolist() == expected
    plain = with_roles(lake, settings, None)
    assert plain.histories.roles is None
    assert np.array_equal(packed.histories.items, plain.histories.items)


@pytest.mark.slow
def test_histories_with_roles_grow_as_those_without(lake: Lake, settings: Settings) -> None:
    """And a snapshot with other roles, or with none, is of no use."""
    roles = Roles.of(Events(targets=("purchase",)))
    fill(lake, SHOP[:4])
    with_roles(lake, settings, None)
    for day, rows in enumerate((SHOP[4:6], [(0, 99, "purchase", 1.0, 1.0), *SHOP[6:]], [])):
        if rows:
            fill(lake, rows, day + 1)
        for asked in (roles, Roles.of(Events(min_value=3)), None, roles):
            found, right = with_roles(lake, settings, asked), afresh(lake, settings, asked)
            assert np.array_equal(found.histories.items, right.histories.items)
            assert found.items.ids.equals(right.items.ids)
            if asked is None:
                assert found.histories.roles is None
            else:
                assert np.array_equal(found.histories.roles, right.histories.roles)


def histories(*users: list[tuple[int, int]]) -> Histories:
    """From (item, roles) of each user's interactions."""
    flat = [interaction for user in users for interaction in user]
    items, roles = np.array(flat, dtype=np.int32).reshape(-1, 2).T
    offsets = np.cumsum([0, *map(len, users)]).astype(np.int64)
    return Histories.from_offsets(items.copy(), offsets, roles.astype(np.uint8))


VIEW, BUY = INPUT, TARGET | INPUT | HAD


def test_targets_alone_are_held_out_after_all_that_came_before() -> None:
    users = histories(
        [(1, VIEW), (2, BUY), (3, VIEW), (4, BUY), (5, VIEW), (5, BUY), (6, VIEW)],
        [(1, BUY), (2, VIEW)],  # nothing before its target
        [(7, VIEW), (8, BUY)],
        [(9, VIEW), (9, VIEW)],
    )
    split = leave_one_out(users)
    assert split.validation.target.tolist() == [4]
    assert split.validation.history.interactions()[1].tolist() == [1, 2, 3]
    assert split.test.target.tolist() == [5, 8]
    assert split.test.history.interactions()[1].tolist() == [1, 2, 3, 4, 5, 7]
    assert split.train.interactions()[1].tolist() == [1, 2, 3, 1, 2, 7, 9, 9]
    assert split.is_validated.tolist() == [True, False, False, False]


def test_what_was_had_long_before_the_target_may_be_found_again() -> None:
    users = histories([(1, BUY), (2, BUY), (1, BUY), (2, BUY)])
    window = SeenWindow(np.array([0, 60, 100, 130]), length=80)

    def likes_lower_items(asked: Histories) -> Any:
        import torch

        yield np.arange(len(asked)), torch.tensor([[-torch.inf, 3.0, 2.0, 1.0]] * len(asked))

    plain, windowed = leave_one_out(users), leave_one_out(users, window)
    never = np.iinfo(np.int64).max
    for split, expected in ((plain, (never, never)), (windowed, (1, never))):
        found = [
            ranks(likes_lower_items, part)["masked"] for part in (split.validation, split.test)
        ]
        assert [rank.tolist() for rank in found] == [[expected[0]], [expected[1]]]


@pytest.mark.parametrize("objective", ["causal", "prefix"])
def test_targets_alone_are_trained_on(objective: Any) -> None:
    users = histories(
        [(1, VIEW), (2, BUY), (3, HAD), (4, VIEW), (5, BUY)], [(6, VIEW), (7, VIEW)], [(8, BUY)]
    )
    rows = training_rows(users, objective, 4)
    assert rows.targets == 2
    (batch,) = batches(rows, 16, 64, np.random.default_rng(0), with_seen=True)
    assert sorted(batch.targets[batch.targets > 0].tolist()) == [2, 5]
    assert set(batch.items[batch.items > 0].tolist()) == {1, 2, 4}, "3 is read by nobody"
    assert batch.seen is not None
    of_target = batch.targets[batch.targets > 0].tolist().index(5)
    assert batch.seen[1][batch.seen[0] == of_target].tolist() == [1, 2, 4]


def run(lake: Lake, settings: Settings, events: Events, **changes: Any) -> dict[Any, list[Any]]:
    changed = settings.model_copy(update={"events": events})
    recommending = Recommending(**{"k": 10, **changes})
    recommend(
        lake,
        changed,
        recommending,
        run_date=DAY,
        run_id="run",
        bound=Bound.of(settings, DAY, "now"),
        replace_why="a test",
    )
    return by_user(published_rows(lake, settings))


@pytest.mark.slow
@pytest.mark.parametrize("has_champion", [True, False])
def test_lists_leave_out_what_counts_as_had(
    lake: Lake, settings: Settings, has_champion: bool
) -> None:
    fill(lake, SHOP)
    if has_champion:
        untrained(lake, [10, 11, 12, 13])
    everything = {10, 11, 12, 13, 14}
    left = {user: everything - {row[1] for row in SHOP if row[0] == user} for user in (1, 2, 3)}
    assert {user: set(items) for user, items in run(lake, settings, Events()).items()} == left
    bought = {1: {10, 12}, 2: {10}, 3: set()}
    lists = run(lake, settings, Events(targets=("purchase",), seen_events=("purchase",)))
    reasons = {reason for *_, reason in published_rows(lake, settings)}
    assert ("model" in reasons) == has_champion
    assert {user: set(items) for user, items in lists.items()} == {
        user: everything - had for user, had in bought.items()
    }
    lists = run(lake, settings, Events(seen_events=("purchase",), seen_window=timedelta(days=5)))
    assert set(lists[1]) == everything - {12}
    assert set(lists[2]) == everything - {10}


@pytest.mark.slow
def test_popularity_counts_targets(lake: Lake, settings: Settings) -> None:
    views: list[Row] = [(user, 20, "view", None, 1) for user in range(10, 20)]
    fill(lake, [*SHOP, *views])
    events = Events(targets=("purchase",), seen_events=("return",))
    assert run(lake, settings, Events(), seen="include")[3][:2] == [13, 20]
    assert run(lake, settings, events)[2][:2] == [10, 12]


def test_a_repeat_that_is_not_excluded_keeps_the_models_bias() -> None:
    """As many items of the history are listed as where nothing is excluded, but those had."""
    import torch

    from recsys.model.presets import resolve
    from recsys.model.recommender import Recommender

    preset = resolve("best", {"width": 16, "blocks": 1, "max_length": 8})
    torch.manual_seed(0)
    model = Recommender(preset.model, 9).eval()
    with torch.no_grad():
        model.repeat.fill_(5.0)
    users = histories([(1, VIEW), (2, BUY), (3, VIEW), (1, VIEW)], [(4, BUY)], [(5, VIEW)])
    (plain,) = top_k(model, users, 9, exclude_seen=False, runtime=Runtime(device="cpu"))
    (lists,) = top_k(model, users, 9, had=users.of_role(HAD), runtime=Runtime(device="cpu"))
    for user, had in enumerate(({2}, {4}, set())):
        expected = [item for item in plain.items[user].tolist() if item not in had]
        assert lists.items[user].tolist() == expected + [0] * len(had)


@pytest.mark.slow
def test_a_model_learns_from_targets_and_is_judged_on_them(lake: Lake, settings: Settings) -> None:
    """A purchase follows the view of the same item: those who never bought judge nobody."""
    rows: list[Row] = []
    for user in range(40):
        for step in range(4):
            item = (user + step) % 9 + 1
            rows.append((user, item, "view", None, 20 - 2 * step))
            if user < 30:
                rows.append((user, item, "purchase", None, 19 - 2 * step))
    fill(lake, rows)
    overrides = {"width": 16, "heads": 2, "blocks": 1, "max_length": 8}
    training = Training(epochs=1, overrides=overrides)
    events = Events(targets=("purchase",), seen_events=("purchase",), seen_window=timedelta(days=3))
    result = train(lake, settings.model_copy(update={"events": events}), training)
    row = find_model(lake, result.model_id)
    assert row
    assert json.loads(row.metrics)["validation"]["users"] == 30
    assert resolve_recipe(lake, settings, training).model_id != result.model_id
    nothing = settings.model_copy(update={"events": Events(targets=("sale",))})
    with pytest.raises(GateError, match="of 280 interactions, none is a target"):
        train(lake, nothing, training)


@pytest.mark.slow
def test_old_targets_count_less_where_popularity_has_a_half_life(
    lake: Lake, settings: Settings
) -> None:
    old: list[Row] = [(user, 20, "purchase", None, 40) for user in range(10, 13)]
    new: list[Row] = [(user, 21, "purchase", None, 1) for user in range(13, 15)]
    seen: list[Row] = [(user, 22, "view", None, 1) for user in range(15, 20)]
    fill(lake, [*SHOP[:1], *old, *new, *seen])
    events = Events(targets=("purchase",))
    assert run(lake, settings, events)[1] == [20, 21, 22]
    month = timedelta(days=30)
    assert run(lake, settings, events, popularity_half_life=month)[1] == [21, 20, 22]
    assert run(lake, settings, Events(), popularity_half_life=month)[1] == [22, 21, 20]
