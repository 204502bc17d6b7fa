"""What everything that recommends has in common: each preset and each baseline."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from recsys.errors import GateError
from recsys.evaluation.baselines import ItemKNN, Popularity, Transitions
from recsys.evaluation.protocol import Scorer, ranks
from recsys.evaluation.splits import HeldOut
from recsys.histories import Histories
from recsys.model.presets import PRESETS, Preset
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer, top_k
from recsys.training.trainer import fit
from tests.worlds import pack, small, successor_world

CPU = Runtime(device="cpu")
BASELINES = ("popularity", "transitions", "item-knn")
EVERY = [*PRESETS, *BASELINES]
EPOCHS = {"causal": 20, "prefix": 4}
N_ITEMS = 40
SPEAKS_TO_NEWCOMERS = {"popularity"}


def baseline(name: str, train: Histories, n_items: int) -> Scorer:
    if name == "popularity":
        return Popularity.of(train, n_items)
    if name == "transitions":
        return Transitions.of(train, n_items)
    return ItemKNN.of(train, n_items, neighbours=20, decay=0.5)


def few_steps(preset: str, **overrides: object) -> Preset:
    """A small preset with four reverse steps at most."""
    steps = min(4, PRESETS[preset].model.steps)
    return small(preset, steps=steps, **overrides)


def untrained(preset: str) -> Recommender:
    """Weights large enough for every user to get a list of their own."""
    config = few_steps(preset, max_length=8, delta=0.1, init_std=0.5).model
    return Recommender(config, N_ITEMS, torch.Generator().manual_seed(0))


def trained(preset: str, train: Histories, n_items: int, epochs: int, seed: int = 0) -> Recommender:
    chosen = few_steps(preset, max_length=12, learning_rate=0.01)
    return fit(train, n_items, chosen, seed=seed, runtime=CPU, validate=None, epochs=epochs).model


def random_histories(users: int = 60) -> Histories:
    generator = np.random.default_rng(0)
    return pack(
        [generator.integers(1, N_ITEMS + 1, generator.integers(0, 20)) for _ in range(users)]
    )


@cache
def system(name: str) -> Recommender | Scorer:
    """A recommender of 40 items whose lists differ from user to user."""
    return baseline(name, random_histories(), N_ITEMS) if name in BASELINES else untrained(name)


def lists(recommender: Recommender | Scorer, histories: Histories, k: int = 10) -> np.ndarray:
    """Lists (U, K) without what each user has had, as they are served or evaluated."""
    if isinstance(recommender, Recommender):
        blocks = list(top_k(recommender, histories, k, runtime=CPU))
        return np.concatenate([block.items for block in blocks])
    shown = np.zeros((len(histories), k), dtype=np.int32)
    nothing = HeldOut(histories, np.zeros(len(histories), dtype=np.int32))
    ranks(recommender, nothing, lists=shown)
    return shown


def had(histories: Histories, user: int) -> set[int]:
    return set(histories.items[histories.starts[user] : histories.ends[user]].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_the_right_answer_of_a_known_world_stands_first(name: str) -> None:
    world = successor_world(users=150)
    train, n_items = world.histories, world.n_items
    users, answer = world.histories, world.next_items()
    if name == "popularity":  # item i has 12 - i interactions: the first one that a user lacks
        train, n_items = pack([list(range(1, last + 1)) for last in range(1, 12)]), 11
        users, answer = pack([[1], [2, 1], [3, 1, 2], [5]]), np.array([2, 3, 4, 1])
    elif name == "item-knn":  # items go in pairs
        pairs = [[item, item + 1] for item in range(1, 31, 2)]
        train, users = pack(pairs * 3), pack([[item] for item in range(1, 31)])
        answer = np.array([item + 1 if item % 2 else item - 1 for item in range(1, 31)])
    scorer: Scorer
    if name in BASELINES:
        scorer = baseline(name, train, n_items)
    else:
        epochs = EPOCHS[small(name).model.objective]
        scorer = ModelScorer(trained(name, train, n_items, epochs), runtime=CPU)
    rank = ranks(scorer, HeldOut(users, answer.astype(np.int32)))["masked"]
    assert (rank == 1).mean() >= 0.95


@pytest.mark.parametrize("name", EVERY)
def test_users_one_by_one_get_the_lists_of_a_batch(name: str) -> None:
    histories = random_histories(6)
    together = lists(system(name), histories)
    alone = [lists(system(name), histories[np.array([user])])[0] for user in range(6)]
    assert np.array_equal(together, np.stack(alone))
    assert len(np.unique(together, axis=0)) > 4


@pytest.mark.parametrize("name", EVERY)
def test_a_list_holds_every_item_but_those_that_its_user_has_had(name: str) -> None:
    histories = random_histories()
    shown = lists(system(name), histories, N_ITEMS)
    for user in np.flatnonzero(histories.lengths).tolist():
        items = shown[user][shown[user] > 0].tolist()
        assert sorted(items) == sorted(set(range(1, N_ITEMS + 1)) - had(histories, user))
        assert (shown[user, len(items) :] == 0).all()


@pytest.mark.parametrize("name", PRESETS)
def test_ineligible_items_are_in_no_list(name: str) -> None:
    histories, eligible = random_histories(), np.arange(N_ITEMS + 1) % 3 != 0
    model = untrained(name)
    blocks = list(top_k(model, histories, 30, eligible=eligible, block=32, runtime=CPU))
    shown = np.concatenate([block.items for block in blocks])
    scores = np.concatenate([block.scores for block in blocks])
    for user in np.flatnonzero(histories.lengths).tolist():
        allowed = set(np.flatnonzero(eligible).tolist()) - had(histories, user) - {0}
        filled = shown[user][shown[user] > 0]
        assert set(filled.tolist()) == allowed
        assert (shown[user, len(filled) :] == 0).all()
        assert (scores[user, len(filled) :] == -np.inf).all()
        assert (np.diff(scores[user, : len(filled)]) <= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_ties_go_to_the_lower_item(name: str) -> None:
    tied: Recommender | Scorer
    if name in BASELINES:  # every item once, none with another
        tied = baseline(name, pack([[item] for item in range(1, N_ITEMS + 1)]), N_ITEMS)
    else:
        tied = untrained(name)
        with torch.no_grad():
            tied.items.weight[1:] = tied.items.weight[1]
    assert lists(tied, pack([[3, 30]]), 5).tolist() == [[1, 2, 4, 5, 6]]


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_history_gets_an_empty_list_or_what_is_popular(name: str) -> None:
    shown = lists(system(name), pack([[], [2, 3], []]), 3)
    nobody = lists(system(name), pack([[], []]), 3)
    assert (shown[1] > 0).all()
    assert (lists(system(name), pack([[2, 3]]), 3)[0] == shown[1]).all()
    for row in (*shown[[0, 2]], *nobody):
        assert (row > 0).all() if name in SPEAKS_TO_NEWCOMERS else (row == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_one_seed_gives_one_model_and_one_list(name: str) -> None:
    world = successor_world(users=60)

    def made(seed: int) -> Recommender | Scorer:
        torch.manual_seed(seed + 5)  # the global generators have no say
        np.random.seed(seed + 5)  # noqa: NPY002 - this is the one
        if name in BASELINES:
            return baseline(name, world.histories, world.n_items)
        return trained(name, world.histories, world.n_items, epochs=2, seed=seed)

    one = made(7)
    torch.manual_seed(6)
    same = made(7)
    assert np.array_equal(lists(one, world.histories), lists(same, world.histories))
    if isinstance(one, Recommender) and isinstance(same, Recommender):
        for parameter, weight in one.state_dict().items():
            assert torch.equal(weight, same.state_dict()[parameter]), parameter
        other = made(8)
        assert isinstance(other, Recommender)
        assert not torch.equal(one.items.weight, other.items.weight)


@pytest.mark.parametrize("where", ["items.weight", "norm_items.weight"])
@pytest.mark.parametrize("name", PRESETS)
def test_weights_that_are_not_finite_raise(name: str, where: str) -> None:
    model = untrained(name)
    with torch.no_grad():
        dict(model.named_parameters())[where][3] = torch.nan
    with pytest.raises(GateError, match="not finite"):
        lists(model, pack([[1, 2]]))
