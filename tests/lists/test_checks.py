"""The checks that stand between staged lists and publication, each on lists that break it."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest

from recsys.lists.checks import ListChecks
from recsys.settings import Recommending

Rows = list[tuple[Any, ...]]

HISTORY: Rows = [(1, "a"), (1, "b"), (2, "a"), (2, "c"), (2, "a")]
GOOD: Rows = [
    (1, 1, "c", 0.9, "model", 0.5),
    (1, 2, "d", 0.1, "popular", 0.5),
    (2, 1, "b", 0.5, "model", None),
    (2, 2, "d", 0.4, "model", None),
]
CONFIDENCE = "confidence is a probability, one for a list, and none where popularity made it"
FROM_INTERACTIONS = "every list is made from its user's interactions"


def table(rows: Rows, *names: str) -> pa.Table:
    values = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.table(dict(zip(names, values, strict=True)))


def broken(lists: Rows, k: int = 2, exclude_seen: bool = True, history: Rows = HISTORY) -> set[str]:
    """The rules that these lists break, seen as one slice."""
    return broken_in([(lists, history)], k, exclude_seen)


def broken_in(slices: list[tuple[Rows, Rows]], k: int = 2, exclude_seen: bool = True) -> set[str]:
    with duckdb.connect() as con:
        con.register("interactions", table(HISTORY[::-1], "user_id", "item_id"))
        eligible = pa.array(["a", "b", "c", "d"])
        recommending = Recommending(
            k=k,
            seen="exclude" if exclude_seen else "include",
            min_confidence=0.25,
            new_items_share=0.5,
        )
        checks = ListChecks(con, eligible, recommending)
        for lists, history in slices:
            checks.check(
                table(lists, "user_id", "rank", "item_id", "score", "reason", "confidence"),
                table([(*row, True)[:3] for row in history], "user_id", "item_id", "had"),
            )
        violations = checks.violations()
        assert len(violations) == 11
        return {rule for rule, count in violations.items() if count}


def test_good_lists_pass() -> None:
    assert broken(GOOD) == set()


def test_a_list_may_be_short_only_when_nothing_is_left() -> None:
    assert broken(GOOD, k=9) == set()
    assert broken(GOOD[:-1], k=9) == {"every user gets k items, or all that are left"}


@pytest.mark.parametrize(
    ("row", "value", "rule"),
    [
        (0, (1, 3, "c", 0.9, "model", 0.5), "ranks run from 1 without a gap"),
        (0, (1, 2, "c", 0.9, "model", 0.5), "ranks run from 1 without a gap"),
        (0, (1, None, "c", 0.9, "model", 0.5), "ranks run from 1 without a gap"),
        (0, (1, 1, "d", 0.9, "model", 0.5), "no list names an item twice"),
        (0, (1, 1, "a", 0.9, "model", 0.5), "no list names an item that its user has had"),
        (
            0,
            (1, 1, "z", 0.9, "model", 0.5),
            "every item is eligible and somebody has interacted with it",
        ),
        (0, (1, 1, "c", float("nan"), "model", 0.5), "scores are finite"),
        (0, (1, 1, "c", None, "model", 0.5), "scores are finite"),
        (
            2,
            (2, 1, "b", 0.3, "model", None),
            "pinned, the model's, own and popular items come in this order, by falling score",
        ),
        (
            2,
            (2, 1, "b", 0.5, "popular", None),
            "pinned, the model's, own and popular items come in this order, by falling score",
        ),
        (1, (1, 2, "d", 0.1, "popular", 0.4), CONFIDENCE),
        (1, (1, 2, "d", 0.1, "popular", None), CONFIDENCE),
        (2, (2, 1, "b", 0.5, "popular", 0.5), CONFIDENCE),
        (0, (1, 1, "c", 0.9, "model", 1.5), CONFIDENCE),
        (0, (1, 1, "c", 0.9, "model", 0.2), "the model's lists are as sure as they have to be"),
        (3, (9, 1, "d", 0.4, "model", None), "every user gets k items, or all that are left"),
    ],
)
def test_a_broken_rule_is_named(row: int, value: tuple[Any, ...], rule: str) -> None:
    assert rule in broken([*GOOD[:row], value, *GOOD[row + 1 :]])


def test_new_items_mix_with_the_models_and_keep_to_their_share() -> None:
    one = [*GOOD[:2], (2, 1, "b", 0.5, "model-new-item", None), GOOD[3]]
    assert broken(one) == set()
    two = [*one[:3], (2, 2, "d", 0.4, "model-new-item", None)]
    assert broken(two) == {"items that the model has not learnt take no more than their share"}


def test_a_seen_item_is_fine_when_asked_for() -> None:
    lists = [(1, 1, "a", 0.9, "model", 0.5), *GOOD[1:]]
    assert broken(lists, exclude_seen=False) == set()


def test_a_list_in_two_pieces_is_not_one() -> None:
    """Each piece has ranks without a gap, and together they are as long as they should be."""
    pieces = [GOOD[0], *GOOD[2:], (1, 1, "d", 0.1, "popular", None)]
    assert broken(pieces) == {"ranks run from 1 without a gap"}


def test_rows_out_of_order_are_a_defect() -> None:
    assert broken([GOOD[1], GOOD[0], *GOOD[2:]]) >= {"ranks run from 1 without a gap"}


def test_violations_add_up_over_slices() -> None:
    one, two = (GOOD[:2], HISTORY[:2]), (GOOD[2:], HISTORY[2:])
    assert broken_in([one, two]) == set()
    bad = [(1, 1, "z", 0.9, "model", 0.5), GOOD[1]], HISTORY[:2]
    for slices in ([bad, two], [two, bad]):
        assert broken_in(slices) == {"every item is eligible and somebody has interacted with it"}


@pytest.mark.parametrize(
    "slices",
    [
        [(GOOD[:2], HISTORY[:2])],
        [(GOOD, HISTORY), (GOOD[2:], HISTORY[2:])],
        [(GOOD, [*HISTORY[:-1], (2, "c")])],
        [(GOOD, HISTORY[:-1])],
    ],
    ids=["a user without a list", "a user served twice", "another item", "one item fewer"],
)
def test_histories_that_are_not_the_lakes_hide_no_defect(slices: list[tuple[Rows, Rows]]) -> None:
    assert broken_in(slices) == {FROM_INTERACTIONS}
