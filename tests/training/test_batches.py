from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from recsys.histories import Histories
from recsys.training import batches as batching
from recsys.training.batches import batches, make_batch, split_into_steps, training_rows
from tests.worlds import pack


def of_lengths(lengths: list[int]) -> Histories:
    """Histories in which no two interactions are of one item, so that a target tells its place."""
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    return Histories.from_offsets(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets)


LENGTHS = [0, 1, 2, 3, 7, 8, 9, 10, 11, 40, 1, 0, 17]


@pytest.mark.parametrize("objective", ["causal", "prefix"])
@pytest.mark.parametrize("max_length", [1, 4, 8, 100])
def test_every_target_is_trained_on_exactly_once(objective: str, max_length: int) -> None:
    histories = of_lengths(LENGTHS)
    rows = training_rows(histories, objective, max_length)
    targets_seen: Counter[int] = Counter()
    for batch in batches(rows, 16, 64, np.random.default_rng(0)):
        items, targets, steps_to_end = batch.items, batch.targets, batch.steps_to_end
        is_item = items > 0
        newest = is_item & (steps_to_end == 0)
        expected = is_item if objective == "causal" else newest
        assert ((targets > 0) == expected).all()
        assert (targets[expected] == items[expected] + 1).all()  # the next item of the same user
        before = is_item[:, 1:] & (
            steps_to_end[:, :-1] > 0
        )  # a history lies in neighbouring cells, in order
        assert (items[:, 1:][before] == items[:, :-1][before] + 1).all()
        assert (steps_to_end[:, 1:][before] == steps_to_end[:, :-1][before] - 1).all()
        assert int(steps_to_end.max()) < max_length
        targets_seen.update(targets[expected].tolist())
    every = [
        item
        for start, end in zip(histories.starts, histories.ends, strict=True)
        for item in histories.items[start + 1 : end].tolist()
    ]
    assert targets_seen == Counter(every)
    assert rows.targets == len(every)


def test_a_prefix_row_holds_the_items_before_its_target() -> None:
    rows = training_rows(pack([[5, 6, 7, 8]]), "prefix", 2)
    batch = make_batch(rows, np.arange(3), 3)
    assert batch.items.tolist() == [[5, 6, 5], [6, 7, 0]]
    assert batch.targets.tolist() == [[0, 7, 6], [0, 8, 0]]
    assert batch.steps_to_end.tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("objective", ["causal", "prefix"])
def test_a_target_knows_what_its_user_had_before(objective: str) -> None:
    generator = np.random.default_rng(2)
    histories = [generator.integers(1, 9, length) for length in (5, 1, 12, 2, 7, 12)]
    rows = training_rows(pack(histories), objective, 4)
    expected: Counter[tuple[int, ...]] = Counter()
    for history in histories:
        for place in range(1, len(history)):
            expected[int(history[place]), *sorted(set(history[:place].tolist()))] += 1
    counted: Counter[tuple[int, ...]] = Counter()
    for batch in batches(rows, 6, 64, generator, with_seen=True):
        assert batch.seen is not None
        row, item = batch.seen
        assert (row.diff() >= 0).all()
        targets = batch.targets[batch.targets > 0].tolist()
        for nth, target in enumerate(targets):
            counted[target, *sorted(item[row == nth].tolist())] += 1
    assert counted == expected
    assert make_batch(rows, np.arange(3), 4).seen is None


def test_a_very_long_history_tells_its_newest_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_MOST_SEEN", 1)
    rows = training_rows(pack([[9, 8, 7, 8, 6, 5]]), "prefix", 2)
    seen = make_batch(rows, np.array([4]), 2, with_seen=True).seen
    assert seen is not None
    assert seen[1].tolist() == [7, 8, 6]


def test_windows_are_cut_from_the_right_end() -> None:
    rows = training_rows(pack([[1, 2, 3, 4, 5, 6]]), "causal", 2)
    batch = make_batch(rows, np.arange(len(rows)), 2)
    assert batch.items.tolist() == [[4, 5], [2, 3], [1, 0]]
    assert batch.targets.tolist() == [[5, 6], [3, 4], [2, 0]]
    assert batch.steps_to_end.tolist() == [[1, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize("objective", ["causal", "prefix"])
def test_batches_keep_to_their_limits(objective: str) -> None:
    generator = np.random.default_rng(1)
    rows = training_rows(of_lengths(generator.integers(2, 60, 300).tolist()), objective, 50)
    for batch_size, batch_tokens in ((400, 1600), (400, 10**6), (10**6, 1600)):
        steps = split_into_steps(rows, batch_size, batch_tokens, generator)
        assert sorted(np.concatenate(steps).tolist()) == list(range(len(rows)))
        for step in steps:
            tokens = int(rows.lengths[step].sum())
            targets = len(step) if objective == "prefix" else tokens
            assert tokens <= batch_tokens + 50
            assert targets <= batch_size + 50


def test_padding_that_is_attended_to_counts_as_tokens() -> None:
    rows = training_rows(of_lengths([3] * 100), "prefix", 50)
    generator = np.random.default_rng(0)
    cells = [batch.items.numel() for batch in batches(rows, 64, 500, generator, padded_to=50)]
    assert sum(cells) == 100 * 2 * 50
    assert max(cells) <= 500 + 50


def test_few_cells_of_a_batch_are_empty() -> None:
    lengths = 2 + np.random.default_rng(0).geometric(0.15, 2000)
    rows = training_rows(of_lengths(lengths.tolist()), "causal", 50)
    for batch in list(batches(rows, 2048, 10**6, np.random.default_rng(0)))[:-1]:
        assert (batch.items > 0).float().mean() > 0.95
        assert batch.items.shape[1] >= rows.lengths.max()


def test_a_step_sees_rows_of_different_lengths() -> None:
    rows = training_rows(of_lengths([3, 5, 9, 17, 33] * 200), "causal", 50)
    steps = split_into_steps(rows, 800, 10_000, np.random.default_rng(0))
    assert min(len(np.unique(rows.lengths[step])) for step in steps[:-1]) == 5


def test_the_order_follows_the_generator() -> None:
    rows = training_rows(of_lengths([20] * 30), "causal", 8)
    one, same, other = (
        split_into_steps(rows, 32, 64, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    one, same, other = (np.concatenate(steps).tolist() for steps in (one, same, other))
    assert one == same
    assert one != other


def test_histories_without_a_target_bring_no_rows() -> None:
    assert len(training_rows(pack([[], [1]]), "causal", 8)) == 0
    assert len(training_rows(pack([]), "prefix", 8)) == 0
