from __future__ import annotations

import numpy as np
import pytest

from recsys.histories import Histories
from recsys.lists.popularity import Popular


def world(users: int, items: int, seed: int) -> tuple[Popular, Histories, np.ndarray]:
    random = np.random.default_rng(seed)
    counts = random.integers(0, 50, items)
    eligible = np.concatenate([[False], random.random(items) < 0.8])
    lengths = random.integers(0, items, users)
    packed = random.integers(1, items + 1, lengths.sum()).astype(np.int32)
    histories = Histories.from_offsets(packed, np.concatenate([[0], np.cumsum(lengths)]))
    return Popular.of(counts, eligible), histories, counts


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_empty_places_take_the_most_popular_items_that_are_left(exclude_seen: bool) -> None:
    users, k = 60, 7
    popular, histories, counts = world(users, 30, seed=3)
    items = np.zeros((users, k), dtype=np.int32)
    scores = np.full((users, k), -np.inf, dtype=np.float32)
    for user in range(users):  # some lists hold a few items of a model already
        listed = [i for i in (4, 9) if i not in histories[np.array([user])].interactions()[1]][
            : user % 3
        ]
        items[user, : len(listed)], scores[user, : len(listed)] = listed, 5.0
    before = items.copy()

    popular.fill(items, scores, histories, exclude_seen=exclude_seen)

    ranking = sorted(popular.order.tolist(), key=lambda i: (-counts[i - 1], i))
    for user in range(users):
        listed = before[user][before[user] != 0].tolist()
        seen = (
            set(histories[np.array([user])].interactions()[1].tolist()) if exclude_seen else set()
        )
        rest = [i for i in ranking if i not in seen and i not in listed]
        expected = (listed + rest)[:k]
        assert items[user].tolist() == expected + [0] * (k - len(expected))
        filled = scores[user, len(listed) : len(expected)]
        assert np.allclose(
            np.exp(filled), counts[items[user, len(listed) : len(expected)] - 1] / counts.sum()
        )
        assert np.isneginf(scores[user, len(expected) :]).all()
