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
    made = batches(rows, 16, 64, np.random.default_rng(0))
    for items, targets in (part for step in made for part in step):
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
    steps = plan(rows, 400, 1600, generator)
    parts = [part for step in steps for part in step]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(rows)))
    padded = sum(len(part) * rows.lengths[part].max() for part in parts)
    assert padded < 1.2 * rows.lengths.sum()
    slack = 4 * 50  # a row of each lot
    for step in steps:
        assert sum(rows.lengths[part].sum() for part in step) <= 1600 + slack
        targets = [len(p) if objective == "prefix" else rows.lengths[p].sum() for p in step]
        assert sum(targets) <= 400 + (4 if objective == "prefix" else slack)


def test_a_step_sees_rows_of_different_lengths() -> None:
    rows = training_rows(numbered([3, 5, 9, 17, 33] * 200), "causal", 50)
    steps = plan(rows, 800, 10_000, np.random.default_rng(0))
    seen = [len({int(n) for part in step for n in rows.lengths[part]}) for step in steps]
    assert np.mean(seen) > 2


def test_the_order_follows_the_generator() -> None:
    rows = training_rows(numbered([20] * 30), "causal", 8)
    one, same, other = (plan(rows, 32, 64, np.random.default_rng(seed)) for seed in (0, 0, 1))
    one, same, other = (
        [part.tolist() for step in each for part in step] for each in (one, same, other)
    )
    assert one == same
    assert one != other


def test_histories_without_a_target_bring_no_rows() -> None:
    assert len(training_rows(pack([[], [1]]), "causal", 8)) == 0
    assert len(training_rows(pack([]), "prefix", 8)) == 0
