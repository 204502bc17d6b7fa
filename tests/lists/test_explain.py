"""Explanations, against scoring each shortened history by itself."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.histories import Histories
from recsys.lake.tables import Lake
from recsys.lists.explain import explain_user
from recsys.lists.left_out import left_out_effects
from recsys.model.recommender import Recommender
from recsys.model.scoring import ModelScorer, top_k
from recsys.operations.erase import erase
from recsys.settings import Settings
from tests import lakes, worlds
from tests.lists.test_recommend import DAY, HISTORIES, run, untrained
from tests.test_cli import recsys

ITEMS = 20


def score_of(scorer: ModelScorer, history: list[int], had: list[int] | None, item: int) -> float:
    """The item's score in the whole ranking of a user with this history."""
    reads, has_had = worlds.pack([history]), worlds.pack([had or []])
    (ranked,) = top_k(scorer.model, reads, ITEMS, exclude_seen=had is not None, had=has_had)
    return float(ranked.scores[0][ranked.items[0] == item][0])


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [False, True])
def test_an_effect_is_the_score_with_an_item_less_the_score_without_it(repeats: bool) -> None:
    preset = worlds.small("best", max_length=5, repeat_bias="learned" if repeats else "none")
    model = Recommender(preset.model, ITEMS).eval()
    if repeats:
        model.repeat.data.fill_(0.05)
    histories = [[1, 2, 3, 2, 4, 5, 6], [7], [8, 9, 8]]
    listed = np.array([[10, 4, 0], [11, 12, 13], [14, 8, 15]], dtype=np.int32)
    if not repeats:
        listed[0, 1] = listed[2, 1] = 16  # what was had is in no list
    scorer = ModelScorer(model)
    packed = worlds.pack(histories)
    found = list(left_out_effects(scorer, packed, None if repeats else packed, listed))
    assert [items.tolist() for items, _ in found] == [[3, 2, 4, 5, 6], [7], [9, 8]]
    for history, (items, effects), asked in zip(histories, found, listed.tolist(), strict=True):
        had = None if repeats else history
        for row, left_out in enumerate(items.tolist()):
            without = [item for item in history if item != left_out]
            for column, item in enumerate(asked):
                if not (without and item):
                    assert np.isnan(effects[row, column])
                    continue
                right = score_of(scorer, history, had, item) - score_of(scorer, without, had, item)
                assert effects[row, column] == pytest.approx(right, abs=1e-5)


def test_one_user_is_explained_alike_beside_others() -> None:
    model = Recommender(worlds.small("best", max_length=8).model, ITEMS).eval()
    world = worlds.successor_world(users=20, n_items=ITEMS)
    listed = np.tile(np.arange(1, 5, dtype=np.int32), (20, 1))
    scorer = ModelScorer(model)
    together = list(left_out_effects(scorer, world.histories, None, listed))
    last = slice(19, 20)
    ((items, effects),) = left_out_effects(scorer, world.histories[last], None, listed[last])
    assert items.tolist() == together[19][0].tolist()
    np.testing.assert_array_equal(effects, together[19][1])


def explained(lake: Lake) -> list[dict[str, Any]]:
    rows = lake.rows(columns.EXPLANATIONS).to_pylist()
    return sorted(rows, key=lambda row: (row["user_id"], row["rank"], row["number"]))


@pytest.mark.slow
def test_a_night_explains_some_lists_as_the_command_does(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {**HISTORIES, 90: [101, 102, 900, 103], 91: [900]})
    lakes.write(lake, columns.ITEMS, [])
    untrained(lake, list(range(100, 117)))
    run(lake, settings, explained_users=100)
    rows = explained(lake)
    assert {row["user_id"] for row in rows} == {*HISTORIES, 90, 91}
    assert {(row["run_date"], row["edition"]) for row in rows} == {(DAY, 1)}
    assert all(row["effect"] is None or row["effect"] > 0 for row in rows)
    assert max(row["number"] for row in rows) == 3
    shown = explain_user(lake, settings, "90").to_pylist()
    stored = [row for row in rows if row["user_id"] == 90]
    told = [row for row in shown if row["because_item_id"]]
    assert [(row["rank"], row["item_id"], row["because_item_id"]) for row in told] == [
        (row["rank"], row["item_id"], row["because_item_id"]) for row in stored
    ]
    assert {row["because_item_id"] for row in told} <= {101, 102, 103}, "of 900 it has not learnt"
    effects = [np.exp(row["effect"]) for row in stored]
    assert [row["times_as_likely"] for row in told] == pytest.approx(effects, rel=1e-5)
    popular = [row for row in rows if row["user_id"] == 91]
    taken = {item: sum(item in had for had in HISTORIES.values()) for item in range(100, 117)}
    taken = {item: taken[item] + (item in (101, 102, 103)) for item in taken}
    assert [row["interactions"] for row in popular] == [taken[row["item_id"]] for row in popular]
    assert {row["because_item_id"] for row in popular} == {None}
    assert explain_user(lake, settings, "91")["interactions"].to_pylist() == [
        row["interactions"] for row in popular
    ]


@pytest.mark.slow
def test_the_users_of_the_report_are_explained_first(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, HISTORIES)
    untrained(lake, list(range(100, 117)))
    run(lake, settings)
    dozen = {row["user_id"] for row in explained(lake)}
    assert len(dozen) == 12
    run(lake, settings, explained_users=13, k=4, replace="one more")
    newest = [row for row in explained(lake) if row["edition"] == 2]
    assert dozen < {row["user_id"] for row in newest}
    assert run(lake, settings, explained_users=5, k=4).status == "unchanged", "it decides no list"
    run(lake, settings, explained_users=0, k=3, replace="none")
    assert {row["edition"] for row in explained(lake)} == {2}, "of the newest lists alone"
    erase(lake, str(min(dozen)), "asked for it")
    assert {row["user_id"] for row in explained(lake)} == {row["user_id"] for row in newest} - {
        min(dozen)
    }


@pytest.mark.slow
def test_an_only_item_and_a_recent_count_are_told_as_such(lake: Lake, settings: Settings) -> None:
    histories = {**HISTORIES, 40: [100], 41: [900]}
    lakes.fill(lake, histories)
    untrained(lake, list(range(100, 117)))
    run(lake, settings, explained_users=40, popularity_half_life=timedelta(minutes=2))
    rows = explained(lake)
    alone = [row for row in rows if row["user_id"] == 40]
    assert {(row["because_item_id"], row["effect"]) for row in alone} == {(100, None)}
    newest = max(map(len, histories.values())) - 1  # minutes after the first
    late = [item for had in histories.values() for at, item in enumerate(had) if at >= newest - 2]
    popular = [row for row in rows if row["user_id"] == 41]
    assert {row["counted_since"] for row in popular} == {
        lakes.START + timedelta(minutes=newest - 2)
    }
    assert [row["interactions"] for row in popular] == [
        late.count(row["item_id"]) for row in popular
    ]


@pytest.mark.slow
def test_an_item_that_is_not_listed_is_explained_on_request(
    lake: Lake,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lakes.fill(lake, {**HISTORIES, 90: [101, 102, 103]})
    untrained(lake, list(range(100, 117)))
    run(lake, settings, k=2)
    listed = explain_user(lake, settings, "90")["item_id"].to_pylist()
    other = next(item for item in range(104, 117) if item not in listed)
    rows = explain_user(lake, settings, "90", item=str(other)).to_pylist()
    assert {(row["rank"], row["reason"]) for row in rows} == {(None, "not listed")}
    (row, *_) = explain_user(lake, settings, "90", item=str(listed[0])).to_pylist()
    assert (row["rank"], row["reason"]) == (1, "model")
    at = ("--lake", lake.root, "explain", "--user", "90", "--format", "json")
    code, out, err = recsys(monkeypatch, capsys, *at)
    assert code == 0, err
    assert next(row["item_id"] for row in json.loads(out) if row["rank"] == 1) == listed[0]
    for user, item, told in (
        ("999", None, "has no list"),
        ("ann", None, "user_id is an integer"),
        ("090", None, "user_id is an integer"),
        (str(2**63), None, "user_id is an integer"),
        ("90", "x", "item_id is an integer"),
        ("90", "104.0", "item_id is an integer"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            explain_user(lake, settings, user, item=item)
    with pytest.raises(ConfigurationError, match="no lists of 2025-12-31 are served"):
        explain_user(lake, settings, "90", run_date=DAY - timedelta(days=2))


def test_histories_without_any_item_are_explained_by_nothing() -> None:
    model = Recommender(worlds.small("best").model, ITEMS).eval()
    empty = Histories.from_offsets(np.zeros(0, np.int32), np.zeros(2, np.int64))
    ((items, effects),) = left_out_effects(
        ModelScorer(model), empty, None, np.array([[1]], dtype=np.int32)
    )
    assert (len(items), effects.shape) == (0, (0, 1))
