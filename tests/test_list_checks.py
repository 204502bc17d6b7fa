"""The checks that stand between staged lists and publication, each on lists that break it."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest

from sql import load

GOOD: list[tuple[Any, ...]] = [
    (1, 1, "c", 0.9, "model"),
    (1, 2, "d", 0.1, "popular"),
    (2, 1, "b", 0.5, "model"),
    (2, 2, "d", 0.4, "model"),
]


def broken(lists: list[tuple[Any, ...]], k: int = 2, exclude_seen: bool = True) -> set[str]:
    with duckdb.connect() as con:
        con.execute("create table interactions (user_id int, item_id varchar)")
        con.execute("insert into interactions values (1,'a'), (1,'b'), (2,'a'), (2,'c'), (2,'a')")
        con.execute("create table eligible as select unnest(['a', 'b', 'c', 'd']) as item_id")
        con.execute(
            "create table lists (user_id int, rank int, item_id varchar, score float, "
            "reason varchar)"
        )
        con.executemany("insert into lists values (?, ?, ?, ?, ?)", lists)
        found = con.execute(load("checks/lists"), {"k": k, "exclude_seen": exclude_seen})
        return {rule for rule, offences in found.fetchall() if offences}


def test_good_lists_pass() -> None:
    assert broken(GOOD) == set()


def test_a_list_may_be_short_only_when_nothing_is_left() -> None:
    assert broken(GOOD, k=9) == set()
    assert broken(GOOD[:-1], k=9) == {"every user has the items due"}


@pytest.mark.parametrize(
    ("row", "value", "rule"),
    [
        (0, (1, 3, "c", 0.9, "model"), "ranks run from 1 without a gap"),
        (0, (1, 2, "c", 0.9, "model"), "ranks run from 1 without a gap"),
        (0, (1, 1, "d", 0.9, "model"), "no item twice in a list"),
        (0, (1, 1, "a", 0.9, "model"), "no item the user has had"),
        (0, (1, 1, "z", 0.9, "model"), "every item is in the catalogue and eligible"),
        (0, (1, 1, "c", float("nan"), "model"), "scores are finite"),
        (0, (1, 1, "c", None, "model"), "scores are finite"),
        (2, (2, 1, "b", 0.3, "model"), "scores fall, the model's before popularity's"),
        (2, (2, 1, "b", 0.5, "popular"), "scores fall, the model's before popularity's"),
        (3, (9, 1, "d", 0.4, "model"), "every user has the items due"),
    ],
)
def test_a_broken_rule_is_named(row: int, value: tuple[Any, ...], rule: str) -> None:
    assert rule in broken([*GOOD[:row], value, *GOOD[row + 1 :]])


def test_a_seen_item_is_fine_when_asked_for() -> None:
    lists = [(1, 1, "a", 0.9, "model"), *GOOD[1:]]
    assert broken(lists, exclude_seen=False) == set()
