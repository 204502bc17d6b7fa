"""A user's own items fill what the model leaves empty, where repeats may be listed."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from recsys.lake.tables import Lake
from recsys.lists.own_items import fill_own_items
from recsys.lists.popularity import Popular
from recsys.settings import Events, Settings
from tests import lakes
from tests.lists.test_events import SHOP, fill, run
from tests.lists.test_recommend import published_rows, untrained
from tests.worlds import pack


def test_the_most_frequent_eligible_items_fill_the_empty_places() -> None:
    eligible = np.array([False, True, True, True, False, True])
    popular = Popular.of(np.array([1, 9, 5, 7, 2]), eligible)
    histories = pack([[1, 3, 3, 1, 2, 4, 4, 4], [5, 5, 2, 1], [], [3]])
    items = np.array([[0, 0, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0], [1, 2, 5, 2]], dtype=np.int32)
    scores = np.full(items.shape, -np.inf, dtype=np.float32)
    filled = fill_own_items(items, scores, histories, popular, exclude_seen=False)
    assert items.tolist() == [[3, 1, 2, 0], [5, 2, 1, 0], [0, 0, 0, 0], [1, 2, 5, 2]]
    assert filled.tolist() == [[True] * 3 + [False], [False, True, True, False]] + [[False] * 4] * 2
    assert np.allclose(scores[0, :3], np.log([2 / 8, 2 / 8, 1 / 8]))
    assert not fill_own_items(items, scores, histories, popular, exclude_seen=True).any()


@pytest.mark.slow
def test_a_night_without_a_champion_lists_what_users_have_most(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {1: [10, 11, 11], 2: [12], 3: [12]})
    lists = run(lake, settings, Events(), seen="include")
    assert lists[1] == [11, 10, 12]
    reasons = [reason for user, *_, reason in published_rows(lake, settings) if user == 1]
    assert reasons == ["own-history", "own-history", "popular"]
    untrained(lake, [10, 11, 12])
    run(lake, settings, Events(), seen="include", k=3)
    assert {reason for *_, reason in published_rows(lake, settings)} == {"model"}


def test_what_no_longer_counts_as_had_is_a_users_own_again(lake: Lake, settings: Settings) -> None:
    fill(lake, SHOP)
    events = Events(targets=("purchase",), seen_events=("purchase",), seen_window=timedelta(days=5))
    lists = run(lake, settings, events)
    assert lists[1][0] == 10, "bought eight days ago"
    assert 12 not in lists[1]
