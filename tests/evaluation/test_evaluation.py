from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.evaluation.baselines import ItemKNN, OwnHistory, Popularity, Transitions
from recsys.evaluation.metrics import (
    UNRANKED,
    average_popularity,
    coverage,
    hit_rate,
    intervals,
    mean_metrics,
    ndcg,
    novelty,
    paired_interval,
)
from recsys.evaluation.protocol import evaluate, evaluation_report, ranks, validator
from recsys.evaluation.splits import (
    HeldOut,
    in_first_half,
    leave_one_out,
    reindex_by_train_popularity,
    temporal,
)
from recsys.histories import Histories, ItemIds, Packed
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer, top_k
from tests.worlds import pack, small, successor_world


def as_lists(histories: Histories) -> list[list[int]]:
    return [
        histories.items[start:end].tolist()
        for start, end in zip(histories.starts, histories.ends, strict=True)
    ]


class Fixed:
    """Scores that are written out."""

    def __init__(self, scores: list[list[float]]) -> None:
        self.scores = torch.tensor(scores)

    def __call__(self, histories: Histories) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        for row in reversed(range(len(histories))):
            yield np.array([row]), self.scores[[row]].clone()


def test_metrics_of_ranks_by_hand() -> None:
    by_user = np.array([1, 3, 5, 6, UNRANKED])
    assert hit_rate(by_user, 5).tolist() == [1, 1, 1, 0, 0]
    assert ndcg(by_user, 5).tolist() == pytest.approx([1, 0.5, 1 / np.log2(6), 0, 0])
    means = mean_metrics(by_user)
    assert means["hr@5"] == pytest.approx(0.6)
    assert means["hr@10"] == pytest.approx(0.8)
    assert means["ndcg@10"] == pytest.approx((1 + 0.5 + 1 / np.log2(6) + 1 / np.log2(7)) / 5)
    assert sorted(means) == sorted(f"{m}@{k}" for m in ("hr", "ndcg") for k in (5, 10, 20))
    assert mean_metrics(np.array([], dtype=np.int64))["hr@5"] == 0


def test_leave_one_out_on_short_histories() -> None:
    histories = pack([[], [1], [2, 3], [4, 5, 6], [7, 8, 9, 10]])
    split = leave_one_out(histories)
    assert as_lists(split.train) == [[], [1], [2], [4], [7, 8]]
    assert as_lists(split.validation.history) == [[4], [7, 8]]
    assert split.validation.target.tolist() == [5, 9]
    assert as_lists(split.test.history) == [[2], [4, 5], [7, 8, 9]]
    assert split.test.target.tolist() == [3, 6, 10]
    for part in (split.train, split.validation.history, split.test.history):
        assert part.items is histories.items
    assert len(leave_one_out(pack([])).test) == 0


def test_ranks_by_hand() -> None:
    held_out = HeldOut(
        pack([[1], [1, 2], [3], [4], [2]]), np.array([3, 3, 3, 2, 0], dtype=np.int32)
    )
    inf = -np.inf
    scorer = Fixed(
        [
            [inf, 9, 5, 4, 1],  # the item that was seen stands first
            [inf, 9, 5, 4, 1],
            [inf, 9, 5, 4, 1],  # the target itself was seen
            [inf, 5, 5, 5, 5],  # all tie: the lower index goes first
            [inf, 9, 5, 4, 1],  # the target is not known
        ]
    )
    by_protocol = ranks(scorer, held_out)
    assert by_protocol["unmasked"].tolist() == [3, 3, 3, 2, UNRANKED]
    assert by_protocol["masked"].tolist() == [2, 1, UNRANKED, 2, UNRANKED]
    judged = evaluate(scorer, held_out)
    assert judged.users == 5
    assert judged.masked["hr@5"] == pytest.approx(3 / 5)
    assert judged.unmasked["hr@5"] == pytest.approx(4 / 5)


@pytest.mark.parametrize("tied", [False, True])
def test_ranks_agree_with_the_lists_that_are_served(tied: bool) -> None:
    world = successor_world(users=40, n_items=25)
    split = leave_one_out(world.histories)
    model = Recommender(small("best", init_std=0.5).model, world.n_items)
    if tied:
        with torch.no_grad():
            model.items.weight[1:] = model.items.weight[1]
    runtime = Runtime(device="cpu")
    by_protocol = ranks(ModelScorer(model, runtime=runtime), split.test)
    for protocol, exclude in (("masked", True), ("unmasked", False)):
        (lists,) = top_k(model, split.test.history, 25, exclude_seen=exclude, runtime=runtime)
        place = (lists.items == split.test.target[:, None]).argmax(1) + 1
        assert np.array_equal(by_protocol[protocol], place)


def test_users_whom_a_scorer_leaves_out_are_misses() -> None:
    model = Recommender(small("best").model, 3)
    held_out = HeldOut(pack([[], [1]]), np.array([2, 2], dtype=np.int32))
    by_protocol = ranks(ModelScorer(model, runtime=Runtime(device="cpu")), held_out)
    assert by_protocol["masked"][0] == UNRANKED
    assert by_protocol["masked"][1] < UNRANKED


def test_popularity_counts_training_interactions_only() -> None:
    histories = pack([[1, 2, 3, 3], [2, 1, 3, 3], [2, 4, 3, 3]])
    split = leave_one_out(histories)
    popularity = Popularity.of(split.train, 4)
    assert popularity.counts.tolist() == [-np.inf, 2, 3, 0, 1]
    by_protocol = ranks(popularity, split.test)
    assert by_protocol["unmasked"].tolist() == [4, 4, 4]


def test_validation_of_many_users_takes_a_sample_drawn_once() -> None:
    world = successor_world(users=100)
    split = leave_one_out(world.histories)
    model = Recommender(small("best", init_std=0.5).model, world.n_items)
    cpu = Runtime(device="cpu")
    whole = evaluate(ModelScorer(model, runtime=cpu), split.validation).masked["hr@20"]
    all_of_them = validator(split.validation, seed=0, runtime=cpu, metric="hr@20")
    some = validator(split.validation, seed=0, runtime=cpu, metric="hr@20", most_users=30)
    assert all_of_them(model) == pytest.approx(whole)
    assert some(model) == some(model)
    assert (some(model) * 30) % 1 == pytest.approx(0, abs=1e-6)


def test_a_temporal_split_by_hand() -> None:
    histories = pack([[1, 2, 3, 4], [5, 6], [7, 8], [9]])
    split = temporal(histories, np.array([1, 0, 2, 1]), np.array([3, 1, 2, 1]))
    assert as_lists(split.train) == [[1], [], [7, 8], [9]]
    assert as_lists(split.validation.history) == [[1]]
    assert split.validation.target.tolist() == [2]
    assert as_lists(split.test.history) == [[1, 2, 3], [5]]
    assert split.test.target.tolist() == [4, 6]


@pytest.mark.slow
def test_bootstrap_intervals_are_those_of_resampled_users() -> None:
    generator = np.random.default_rng(0)
    by_user = generator.integers(1, 40, 400)
    low, high = intervals(by_user, draws=40_000)["ndcg@10"]
    drawn = ndcg(by_user, 10)[generator.integers(0, 400, (40_000, 400))].mean(1)
    assert [low, high] == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.0008)
    assert low < mean_metrics(by_user)["ndcg@10"] < high
    assert intervals(np.array([], dtype=np.int64))["hr@5"] == [0, 0]


def test_what_lists_show_by_hand() -> None:
    counts = np.array([0, 4, 2, 2, 0])
    lists = np.array([[1, 2], [1, 0], [0, 0]], dtype=np.int32)
    assert coverage(lists, 4) == 0.5
    assert novelty(lists, counts) == pytest.approx((1 + 2 + 1) / 3)
    assert average_popularity(lists, counts) == pytest.approx((3 + 4) / 2)
    assert novelty(np.array([[4]], dtype=np.int32), counts) == 3  # never seen: as if once
    nothing = np.zeros((2, 2), dtype=np.int32)
    assert (coverage(nothing, 4), novelty(nothing, counts)) == (0, 0)
    assert average_popularity(nothing, counts) == 0


def test_an_assessment_agrees_with_the_evaluation_and_slices_users() -> None:
    world = successor_world(users=100)
    split = leave_one_out(world.histories)
    popularity = Popularity.of(split.train, world.n_items)
    report = evaluation_report(popularity, split.test, split.train, world.n_items)
    assert report.masked == evaluate(popularity, split.test).masked
    by_length = [part for part in report.slices if part.name.startswith("history")]
    by_item = [part for part in report.slices if "items" in part.name]
    for parts in (by_length, by_item):
        assert sum(part.users for part in parts) == 100
        whole = sum(part.users * part.masked["hr@10"] for part in parts) / 100
        assert whole == pytest.approx(report.masked["hr@10"])
    assert 3 <= len(by_length) <= 5
    # Popularity's masked lists are the ten most popular items that a user has not had.
    order = np.argsort(-popularity.counts, kind="stable")
    listed = {
        item
        for history in as_lists(split.test.history)
        for item in [unseen for unseen in order.tolist() if unseen not in history][:10]
    }
    assert report.lists["coverage@10"] == pytest.approx(len(listed) / world.n_items)


def test_an_assessment_by_hand() -> None:
    histories = pack([[1], [1, 2], [2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5], [4]])
    held_out = HeldOut(histories, np.array([2, 1, 5, 6, 7, 1], dtype=np.int32))
    # Item 1 is the most popular of ten in what was learnt from; in the histories, 2 and 4 are.
    train = pack([[1, 1, 1, 2, 2]])
    level = Fixed([[-np.inf, *[0.0] * 10]] * 6)  # everything ties
    report = evaluation_report(level, held_out, train, 10)
    slices = {part.name: part for part in report.slices}
    assert {name: part.users for name, part in slices.items()} == {
        "history 1-1": 2,
        "history 2-2": 1,
        "history 3-3": 1,
        "history 4-5": 2,
        "popular fifth of items": 3,
        "other items": 3,
    }
    # The user who had 1 finds 2 in the first place; who had 4 finds 1 there.
    assert slices["history 1-1"].masked["ndcg@10"] == 1
    # Behind 1 and 2 of the masked ranking, and behind 1 to 4 of the other one.
    assert slices["history 3-3"].masked["ndcg@10"] == pytest.approx(1 / np.log2(3))
    assert slices["history 3-3"].unmasked["ndcg@10"] == pytest.approx(1 / np.log2(6))
    assert report.lists["coverage@10"] == 1
    # Each list holds all that its user has not had: 1 twice, 2 twice, of 3 and 2 of 5 interactions.
    places = 6 * 10 - len(histories.items)
    bits = 2 * np.log2(5 / 3) + 2 * np.log2(5 / 2) + (places - 4) * np.log2(5)
    assert report.lists["novelty@10"] == pytest.approx(bits / places)


def test_tied_lists_are_those_that_are_served() -> None:
    held_out = HeldOut(pack([[3], [200]]), np.array([1, 1], dtype=np.int32))
    shown = np.zeros((2, 10), dtype=np.int32)
    ranks(Fixed([[-np.inf, *[0.0] * 300]] * 2), held_out, lists=shown)
    assert shown.tolist() == [[1, 2, *range(4, 12)], [*range(1, 11)]]


def test_histories_of_one_length_are_one_slice() -> None:
    held_out = HeldOut(pack([[1], [2]]), np.array([2, 1], dtype=np.int32))
    report = evaluation_report(Fixed([[-np.inf, 1, 2]] * 2), held_out, held_out.history, 2)
    assert [(part.name, part.users) for part in report.slices][:1] == [("history 1-1", 2)]


def test_a_neighbourhood_is_chosen_by_the_judge() -> None:
    settings: list[tuple[int, float]] = []

    def judge(model: ItemKNN) -> float:
        settings.append((int((model.similar.toarray() > 0).sum(1).max()), model.decay))
        return {0.9: 1.0, 0.3: 2.0}.get(model.decay, 0.0)

    train = pack([[1, 2, 3], [2, 3, 4], [1, 4]])
    model, setting = ItemKNN.tuned(train, 4, judge)
    assert len(settings) == 20
    assert model.decay == setting["decay"] == 0.3


def test_items_are_numbered_by_what_is_learnt_from() -> None:
    """Item 30 is the most frequent of all, and held out each time."""
    items, users = ItemIds(pa.array([30, 10, 20])), pa.array(["a", "b", "c"])
    histories = pack([[2, 3, 1], [3, 2, 1], [3, 1, 1]])
    before = Packed(users, items, np.array([4, 2, 3]), histories)
    packed, split = reindex_by_train_popularity(before, leave_one_out)
    assert packed.items.ids.to_pylist() == [20, 10, 30]
    assert packed.counts.tolist() == [3, 2, 4]
    assert as_lists(packed.histories) == [[2, 1, 3], [1, 2, 3], [1, 3, 3]]
    assert as_lists(split.train) == [[2], [1], [1]]
    assert packed.users is users


def test_neighbours_by_hand() -> None:
    train = pack([[1, 2], [1, 2, 3], [3, 4]])
    model = ItemKNN.of(train, 5, neighbours=10, decay=0.5)
    similar = model.similar.toarray()
    assert similar[1, 2] == pytest.approx(1)
    assert similar[1, 3] == pytest.approx(0.5)
    assert similar[3, 4] == pytest.approx(1 / np.sqrt(2))
    assert np.allclose(similar, similar.T)
    assert (similar[[0, 5]] == 0).all()
    ((rows, scores),) = model(pack([[1, 3], [], [4]]))
    assert rows.tolist() == [0, 2]
    assert scores[0, 4].item() == pytest.approx(1 / np.sqrt(2))
    assert scores[0, 2].item() == pytest.approx(0.5 * 1 + 0.5)
    one = ItemKNN.of(train, 5, neighbours=1, decay=1.0).similar.toarray()
    assert one[1].tolist() == pytest.approx([0, 0, 1, 0, 0, 0])


def test_transitions_fall_back_on_popularity() -> None:
    model = Transitions.of(pack([[1, 2], [1, 3], [1, 3], [4, 2], [2]]), 5)
    ((rows, scores),) = model(pack([[1], [5], []]))
    assert rows.tolist() == [0, 1]
    assert scores[0].argsort(descending=True).tolist()[:3] == [3, 2, 1]
    assert scores[1].argsort(descending=True, stable=True).tolist()[:3] == [1, 2, 3]
    assert scores[0, 0] == -torch.inf


def test_own_history_lists_a_users_most_frequent_items_then_the_popular_ones() -> None:
    train = pack([[1, 1, 3, 2, 2, 2], [3], [3, 4]])
    held_out = HeldOut(train, np.array([1, 1, 4], dtype=np.int32))
    found = ranks(OwnHistory.of(train, 4), held_out)
    assert found["unmasked"].tolist() == [2, 3, 2]
    assert found["masked"][1:].tolist() == [2, UNRANKED]


def test_a_user_is_in_the_same_half_whoever_else_is_there() -> None:
    for ids in (np.arange(10_000), [f"user {number}" for number in range(10_000)]):
        users = pa.array(ids)
        first = in_first_half(users, "seed")
        assert 4_800 < first.sum() < 5_200
        assert (in_first_half(users.slice(500, 50), "seed") == first[500:550]).all()
        other = in_first_half(users, "another")
        assert 4_500 < (first == other).sum() < 5_500


def test_a_paired_interval_is_narrower_than_that_of_users_drawn_apart() -> None:
    generator = np.random.default_rng(0)
    easy = generator.random(4_000) < 0.3
    ours = easy * 0.6 + (generator.random(4_000) < 0.02) * 0.3
    theirs = easy * 0.6
    low, high = paired_interval(ours, theirs)
    true = float((ours - theirs).mean())
    assert low < true < high
    assert high - low < 0.2 * (1.96 * 2 * ours.std() / np.sqrt(4_000))
    assert high - low == pytest.approx(2 * 1.96 * (ours - theirs).std() / np.sqrt(4_000), rel=0.1)
