from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from recsys.sequences import Histories
from recsys.training.batches import batches, plan, training_rows
from tests.worlds import pack


def numbered(lengths: list[int]) -> Histories:
    """Histories in which no two interactions are of one item, so that a target tells its place."""
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    return Histories.from_offsets(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets)


LENGTHS = [0, 1, 2, 3, 7, 8, 9, 10, 11, 40, 1, 0, 17]


@pytest.mark.parametrize("objective", ["causal", "prefix"])
@pytest.mark.parametrize("max_length", [1, 4, 8, 100])
def test_every_target_is_trained_on_exactly_once(objective: str, max_length: int) -> None:
    histories = numbered(LENGTHS)
    rows = training_rows(histories, objective, max_length)
    found: Counter[int] = Counter()
    for items, targets in batches(rows, 16, 64, np.random.default_rng(0)):
        assert items.shape[1] <= max_length
        assert (items[:, 0] > 0).all()
        if objective == "causal":
            held = items > 0
            assert (targets[held] == items[held] + 1).all()  # the next item of the same user
            assert (targets[~held] == 0).all()
            found.update(targets[held].tolist())
        else:
            newest = items.max(dim=1).values
            assert (targets == newest + 1).all()
            found.update(targets.tolist())
    every = [
        item
        for start, end in zip(histories.starts, histories.ends, strict=True)
        for item in histories.items[start + 1 : end].tolist()
    ]
    assert found == Counter(every)
    assert rows.targets == len(every)


def test_a_prefix_row_holds_the_items_before_its_target() -> None:
    rows = training_rows(pack([[5, 6, 7, 8]]), "prefix", 2)
    items, targets = rows.gather(np.arange(3))
    assert items.tolist() == [[5, 0], [5, 6], [6, 7]]
    assert targets.tolist() == [6, 7, 8]


def test_windows_are_cut_from_the_right_end() -> None:
    rows = training_rows(pack([[1, 2, 3, 4, 5, 6]]), "causal", 2)
    items, targets = rows.gather(np.arange(len(rows)))
    assert items.tolist() == [[4, 5], [2, 3], [1, 0]]
    assert targets.tolist() == [[5, 6], [3, 4], [2, 0]]


@pytest.mark.parametrize("objective", ["causal", "prefix"])
def test_batches_keep_to_their_limits(objective: str) -> None:
    generator = np.random.default_rng(1)
    rows = training_rows(numbered(generator.integers(2, 60, 300).tolist()), objective, 50)
    chosen = plan(rows, 100, 400, generator)
    assert sorted(np.concatenate(chosen).tolist()) == list(range(len(rows)))
    padded = real = 0
    for each in chosen:
        lengths = rows.lengths[each]
        assert len(each) * lengths.max() <= 400
        assert (len(each) if objective == "prefix" else lengths.sum()) <= 100
        padded += len(each) * lengths.max()
        real += lengths.sum()
    assert padded < 1.1 * real


def test_the_order_follows_the_generator() -> None:
    rows = training_rows(numbered([20] * 30), "causal", 8)
    one, same, other = (plan(rows, 32, 64, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=False))


def test_histories_without_a_target_bring_no_rows() -> None:
    assert len(training_rows(pack([[], [1]]), "causal", 8)) == 0
    assert len(training_rows(pack([]), "prefix", 8)) == 0
