from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.histories import Histories
from recsys.model.fold_in import fold_in
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer, top_k
from recsys.training.trainer import fit
from tests.worlds import SuccessorWorld, pack, small, successor_world

CPU = Runtime(device="cpu")
KNOWN = 30


@pytest.fixture(scope="module")
def learnt() -> tuple[SuccessorWorld, Recommender]:
    """A known world of 30 items, whose users' two newest items are not learnt from."""
    world = successor_world(users=200, n_items=KNOWN, shortest=5, longest=12)
    preset = small("best", blocks=1, max_length=12, learning_rate=5e-3, average=0)
    train = world.histories.without_last(2)
    fitted = fit(train, KNOWN, preset, seed=0, runtime=CPU, validate=None, epochs=20)
    return world, fitted.model


def with_twins(world: SuccessorWorld, twins: dict[int, int]) -> Histories:
    """The same users; every second who took a twin's item last took the twin, a new item."""
    items = world.histories.items.copy()
    for known, new in twins.items():
        newest = world.histories.ends - 1
        takers = newest[items[newest] == known]
        items[takers[::2]] = new
    return Histories(items, world.histories.starts, world.histories.ends)


@pytest.mark.slow
def test_a_new_item_is_listed_where_its_twin_is(
    learnt: tuple[SuccessorWorld, Recommender],
) -> None:
    world, model = learnt
    twins = {5: KNOWN + 1, 17: KNOWN + 2}
    histories = with_twins(world, twins)
    extended, has_vector = fold_in(ModelScorer(model, runtime=CPU), histories, KNOWN + 3)
    assert np.flatnonzero(has_vector).tolist() == [31, 32], "nobody took item 33"
    before = np.flatnonzero(world.successor == 5)[0], np.flatnonzero(world.successor == 17)[0]
    eligible = np.ones(KNOWN + 4, dtype=bool)
    eligible[33] = False
    askers = pack([[int(np.flatnonzero(world.successor == item)[0]), int(item)] for item in before])
    (lists,) = top_k(extended, askers, 3, eligible=eligible, runtime=CPU)
    for listed, (known, new) in zip(lists.items.tolist(), twins.items(), strict=True):
        assert {known, new} <= set(listed)
    # What the model knew it still knows, and elsewhere the new items are in nobody's way.
    others = world.histories[~np.isin(world.next_items(), [5, 17])]
    best = np.concatenate([block.items[:, 0] for block in top_k(extended, others, 1, runtime=CPU)])
    best_before = np.concatenate(
        [block.items[:, 0] for block in top_k(model, others, 1, runtime=CPU)]
    )
    assert np.mean(best == best_before) > 0.8


def test_vectors_are_the_same_each_time_and_known_ones_stay(
    learnt: tuple[SuccessorWorld, Recommender],
) -> None:
    world, model = learnt
    histories = with_twins(world, {5: KNOWN + 1})
    scorer = ModelScorer(model, runtime=CPU)
    first, again = (fold_in(scorer, histories, KNOWN + 1)[0].items.weight for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first[: KNOWN + 1], model.items.weight)


def test_an_item_that_came_first_in_every_history_gets_no_vector(
    learnt: tuple[SuccessorWorld, Recommender],
) -> None:
    _, model = learnt
    extended, has_vector = fold_in(
        ModelScorer(model, runtime=CPU), pack([[31], [31, 4], [3, 4, 5]]), 31
    )
    assert not has_vector.any()
    assert not extended.items.weight[31].any()
