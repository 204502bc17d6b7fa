from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.errors import ConfigurationError
from recsys.histories import Histories
from recsys.model import scoring
from recsys.model.config import ModelConfig
from recsys.model.inputs import InferenceNoise
from recsys.model.loss import directions
from recsys.model.presets import PRESETS
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import top_k
from recsys.model.top_k import top_k_items
from tests.worlds import pack, scores, small, successor_world

CPU = Runtime(device="cpu")


def untrained(preset: str = "best", n_items: int = 40, **overrides: object) -> Recommender:
    config = small(preset, max_length=8, delta=0.1, init_std=0.5, **overrides).model
    return Recommender(config, n_items, torch.Generator().manual_seed(0))


def random_histories(users: int, n_items: int, longest: int = 20) -> Histories:
    generator = np.random.default_rng(0)
    return pack(
        [generator.integers(1, n_items + 1, generator.integers(0, longest)) for _ in range(users)]
    )


def lists(
    model: Recommender, histories: Histories, k: int = 10, **options: object
) -> tuple[np.ndarray, np.ndarray]:
    blocks = list(top_k(model, histories, k, **{"runtime": CPU, **options}))
    assert [block.start for block in blocks] == np.cumsum(
        [0, *(len(block.items) for block in blocks[:-1])]
    ).tolist()
    return (
        np.concatenate([block.items for block in blocks]),
        np.concatenate([block.scores for block in blocks]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_list_does_not_depend_on_the_block(preset: str, precision: str) -> None:
    model = untrained(preset)
    histories = random_histories(60, 40)
    runtime = Runtime(device="cpu", precision=precision)
    blocks = {
        block: list(top_k(model, histories, 10, steps=2, block=block, runtime=runtime))
        for block in (1, 7, 4096)
    }
    whole = blocks[4096][0]
    for block in (1, 7):
        items = np.concatenate([part.items for part in blocks[block]])
        scored = np.concatenate([part.scores for part in blocks[block]])
        assert np.array_equal(items, whole.items)
        assert np.array_equal(scored, whole.scores)
    for user in np.flatnonzero(histories.lengths)[[0, 7, -1]]:  # encoded alone, too
        (alone,) = top_k(model, histories[[user]], 10, steps=2, runtime=runtime)
        assert np.array_equal(alone.items[0], whole.items[user])
        assert np.array_equal(alone.scores[0], whole.scores[user])


def test_users_are_encoded_and_ranked_by_many_and_listed_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = untrained()
    histories = random_histories(300, 40)
    items, scored = lists(model, histories, block=300)
    whole = scores(model, histories, runtime=CPU)
    monkeypatch.setattr(scoring, "_ENCODED_USERS", 64)
    again, scored_again = lists(model, histories, block=30)
    assert np.array_equal(items, again)
    assert np.array_equal(scored, scored_again)
    assert torch.allclose(scores(model, histories, runtime=CPU), whole, atol=1e-5)


def test_the_seed_decides_the_lists() -> None:
    model = untrained()
    histories = random_histories(50, 40)
    first, again, other = (lists(model, histories, seed=seed)[1] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("preset", ["best", "diffurec"])
def test_noise_is_not_what_the_weights_of_the_same_seed_started_from(preset: str) -> None:
    model = untrained(preset, n_items=300)
    draws = InferenceNoise.of(model.config, 2, 0, torch.device("cpu"))
    drawn = torch.vstack([draws.start, draws.reverse, draws.weight - model.config.delta])
    for weights in (
        parameter for parameter in model.parameters() if parameter.shape[-1:] == drawn.shape[-1:]
    ):
        alike = directions(weights.detach().reshape(-1, drawn.shape[1])) @ directions(drawn).T
        assert alike.abs().max() < 0.9


def test_users_with_one_history_get_one_list() -> None:
    items, scored = lists(untrained(), pack([[3, 1, 4], [5], [3, 1, 4]]))
    assert np.array_equal(items[0], items[2])
    assert np.array_equal(scored[0], scored[2])
    assert not np.array_equal(items[0], items[1])


def test_top_k_is_the_full_ranking_cut_off() -> None:
    model = untrained()
    histories = random_histories(50, 40)
    full = scores(model, histories, runtime=CPU)
    assert full.shape == (50, 41)
    assert (full[:, 0] == -torch.inf).all()
    items, scored = lists(model, histories, k=12, block=16, exclude_seen=False)
    for user in np.flatnonzero(histories.lengths):
        order = np.argsort(-full[user].numpy(), kind="stable")[:12]
        assert np.array_equal(items[user], order)
        assert np.allclose(scored[user], full[user].log_softmax(0).numpy()[order], atol=1e-5)


def test_a_score_is_the_log_of_a_probability_among_what_the_list_may_hold() -> None:
    eligible = np.ones(41, dtype=bool)
    eligible[[0, 5, 9]] = False
    histories = pack([[1, 2, 1], [3]])
    items, scored = lists(untrained(), histories, k=40, eligible=eligible)
    for user, candidates in ((0, 36), (1, 37)):  # of 40, without two that are out and what was had
        listed = items[user] > 0
        assert listed.sum() == candidates
        assert np.exp(scored[user, listed]).sum() == pytest.approx(1, abs=1e-5)


def test_more_items_wanted_than_the_catalogue_has() -> None:
    items, scored = lists(untrained(n_items=5), pack([[1, 2]]), k=9)
    assert sorted(items[0].tolist()) == [0, 0, 0, 0, 0, 0, 3, 4, 5]
    assert np.isfinite(scored[0, :3]).all()


def test_one_item_in_the_catalogue() -> None:
    model = untrained(n_items=1)
    assert lists(model, pack([[1]]), k=2)[0].tolist() == [[0, 0]]
    assert lists(model, pack([[1]]), k=2, exclude_seen=False)[0].tolist() == [[1, 0]]


def test_only_the_newest_items_are_read_but_all_seen_ones_are_masked() -> None:
    model = untrained()
    long = list(range(1, 21))
    first = scores(model, pack([long]), runtime=CPU)
    cut = scores(model, pack([long[-8:]]), runtime=CPU)
    assert torch.equal(first, cut)
    items, _ = lists(model, pack([long]), k=20)
    assert sorted(items[0].tolist()) == list(range(21, 41))


def test_cosine_scores_forget_lengths() -> None:
    model = untrained(similarity="cosine", temperature=0.1, repeat_bias="none")
    histories = pack([[1, 2], [3]])
    exact = Runtime(device="cpu", precision="fp32")
    finite = scores(model, histories, runtime=exact)[:, 1:]
    assert (finite.abs() <= 10 + 1e-4).all()
    draws = InferenceNoise.of(model.config, 1, 0, torch.device("cpu"))
    with torch.no_grad():
        x_0 = model.predict(torch.tensor([[3]]), 1, draws)
        expected = torch.nn.functional.cosine_similarity(x_0, model.items.weight[1:]) / 0.1
    assert torch.allclose(finite[1], expected, atol=1e-4)
    _, scored = lists(model, histories, k=40, exclude_seen=False, runtime=exact)
    assert np.allclose(scored[1], expected.log_softmax(0).sort(descending=True).values, atol=1e-4)


def test_a_repeat_bias_raises_each_item_of_a_history_once() -> None:
    plain, biased = (untrained(repeat_bias=form) for form in ("none", "learned"))
    with torch.no_grad():
        biased.repeat.fill_(0.5)
    biased.load_state_dict(plain.state_dict(), strict=False)
    histories = pack([[1, 2, 1], [], [3]])
    before, after = (scores(model, histories, runtime=CPU) for model in (plain, biased))
    raised = torch.zeros_like(before)
    raised[0, [1, 2]] = raised[2, 3] = 0.5 * biased.config.width
    assert torch.equal(torch.nan_to_num(after - before), raised)
    items, scored = lists(biased, histories, k=3, exclude_seen=False)
    assert np.allclose(scored[0], after[0].log_softmax(0).topk(3).values, atol=1e-5)
    assert set(items[0, :2].tolist()) == {1, 2}
    # Where what was seen is left out, the bias changes nothing.
    assert (lists(biased, histories, k=3)[0] == lists(plain, histories, k=3)[0]).all()


def test_ties_go_to_the_lower_item() -> None:
    weight = torch.zeros(101, 2)
    weight[60:, 1] = 1
    best, items = top_k_items(torch.eye(2), weight, 5)
    logs = -np.log([100, 59 + 41 * np.e]) + [0, 1]
    assert np.allclose(best, np.repeat(logs, 5).reshape(2, 5), atol=1e-6)
    assert items.tolist() == [[1, 2, 3, 4, 5], [60, 61, 62, 63, 64]]


@pytest.mark.slow
def test_a_catalogue_in_chunks_is_ranked_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    # Small whole numbers, so that ties abound, within chunks and across them.
    predicted = torch.randint(-2, 3, (60, 4), generator=generator).float()
    weight = torch.randint(-2, 3, (301, 4), generator=generator).float()
    row, item = (
        torch.randint(0, high, (400,), generator=generator).sort().values for high in (60, 301)
    )
    item = item[torch.randperm(400, generator=generator)].clamp(min=1)
    ineligible = torch.rand(301, generator=generator) < 0.3
    full = predicted @ weight.T
    full[row, item] = -torch.inf
    full[:, ineligible] = -torch.inf
    full[:, 0] = -torch.inf
    scored, order = full.sort(dim=1, descending=True, stable=True)
    for size in (7, 64, 300, 16_384):
        monkeypatch.setattr("recsys.model.top_k._ITEMS", size)
        best, items = top_k_items(predicted, weight, 25, (row, item), ineligible)
        expected = scored.double().log_softmax(1)[:, :25]
        assert torch.allclose(best.double(), expected, atol=1e-5)
        assert torch.equal(items, order[:, :25])


def test_what_is_out_of_range_is_refused() -> None:
    model = untrained()
    for options, message in [
        ({"k": 0}, "k = 0"),
        ({"block": 0}, "block = 0"),
        ({"steps": 33}, "steps = 33"),
        ({"eligible": np.ones(3, dtype=bool)}, "eligible"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            lists(model, pack([[1]]), **options)
    with pytest.raises(ConfigurationError, match="auto"):
        Runtime(device="tpu")


def test_progress_ends_at_the_number_of_users() -> None:
    calls = []
    world = successor_world(users=25)
    list(
        top_k(
            untrained(),
            world.histories,
            3,
            block=10,
            runtime=CPU,
            progress=lambda *call: calls.append(call),
        )
    )
    assert calls[-1] == ("scoring", 25, 25, "")


def test_a_model_never_changes_the_threads_of_its_caller() -> None:
    before = torch.get_num_threads()
    histories = pack([[1, 2]])
    for _ in top_k(untrained(), histories, 3, runtime=Runtime(device="cpu", threads=1)):
        assert torch.get_num_threads() == before
        assert not torch.is_autocast_enabled("cpu")


def test_config_is_hashable_and_small() -> None:
    assert hash(ModelConfig()) == hash(ModelConfig())
