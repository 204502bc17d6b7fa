from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from recsys.evaluation.baselines import Popularity
from recsys.evaluation.metrics import UNRANKED, figures, hit_rate, ndcg
from recsys.evaluation.protocol import Withheld, evaluate, leave_one_out, ranks, validator
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import Scorer, top_k
from recsys.sequences import Histories
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
    found = np.array([1, 3, 5, 6, UNRANKED])
    assert hit_rate(found, 5).tolist() == [1, 1, 1, 0, 0]
    assert ndcg(found, 5).tolist() == pytest.approx([1, 0.5, 1 / np.log2(6), 0, 0])
    means = figures(found)
    assert means["hr@5"] == pytest.approx(0.6)
    assert means["hr@10"] == pytest.approx(0.8)
    assert means["ndcg@10"] == pytest.approx((1 + 0.5 + 1 / np.log2(6) + 1 / np.log2(7)) / 5)
    assert sorted(means) == sorted(f"{m}@{k}" for m in ("hr", "ndcg") for k in (5, 10, 20))
    assert figures(np.array([], dtype=np.int64))["hr@5"] == 0


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
    withheld = Withheld(
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
    found = ranks(scorer, withheld)
    assert found["unmasked"].tolist() == [3, 3, 3, 2, UNRANKED]
    assert found["masked"].tolist() == [2, 1, UNRANKED, 2, UNRANKED]
    judged = evaluate(scorer, withheld)
    assert judged["users"] == 5
    assert judged["masked"]["hr@5"] == pytest.approx(3 / 5)
    assert judged["unmasked"]["hr@5"] == pytest.approx(4 / 5)


@pytest.mark.parametrize("tied", [False, True])
def test_ranks_agree_with_the_lists_that_are_served(tied: bool) -> None:
    world = successor_world(users=40, n_items=25)
    split = leave_one_out(world.histories)
    model = Recommender(small("best", init_std=0.5).model, world.n_items)
    if tied:
        with torch.no_grad():
            model.items.weight[1:] = model.items.weight[1]
    runtime = Runtime(device="cpu")
    found = ranks(Scorer(model, runtime=runtime), split.test)
    for protocol, exclude in (("masked", True), ("unmasked", False)):
        (lists,) = top_k(model, split.test.history, 25, exclude_seen=exclude, runtime=runtime)
        at = (lists.items == split.test.target[:, None]).argmax(1) + 1
        assert np.array_equal(found[protocol], at)


def test_users_whom_a_scorer_leaves_out_are_misses() -> None:
    model = Recommender(small("best").model, 3)
    withheld = Withheld(pack([[], [1]]), np.array([2, 2], dtype=np.int32))
    found = ranks(Scorer(model, runtime=Runtime(device="cpu")), withheld)
    assert found["masked"][0] == UNRANKED
    assert found["masked"][1] < UNRANKED


def test_popularity_counts_training_interactions_only() -> None:
    histories = pack([[1, 2, 3, 3], [2, 1, 3, 3], [2, 4, 3, 3]])
    split = leave_one_out(histories)
    popularity = Popularity.of(split.train, 4)
    assert popularity.counts.tolist() == [-np.inf, 2, 3, 0, 1]
    found = ranks(popularity, split.test)
    assert found["unmasked"].tolist() == [4, 4, 4]


def test_validation_of_many_users_takes_a_sample_drawn_once() -> None:
    world = successor_world(users=100)
    split = leave_one_out(world.histories)
    model = Recommender(small("best", init_std=0.5).model, world.n_items)
    cpu = Runtime(device="cpu")
    whole = evaluate(Scorer(model, runtime=cpu), split.validation)["masked"]["hr@20"]
    all_of_them = validator(split.validation, seed=0, runtime=cpu, metric="hr@20")
    some = validator(split.validation, seed=0, runtime=cpu, metric="hr@20", most_users=30)
    assert all_of_them(model) == pytest.approx(whole)
    assert some(model) == some(model)
    assert (some(model) * 30) % 1 == pytest.approx(0, abs=1e-6)
