from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.errors import ConfigurationError
from recsys.model.approximator import CrossAttention, HeadwiseCrossAttention, dropout
from recsys.model.config import ModelConfig, TrainingConfig
from recsys.model.inputs import Batch, InferenceNoise
from recsys.model.loss import cross_entropy, directions, sampled_cross_entropy
from recsys.model.presets import PRESETS
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.training.batches import make_batch, training_rows
from recsys.training.negatives import Negatives
from tests.sampling import sample
from tests.worlds import pack, scores, small

VARIANTS = [
    (objective, approximator, positions)
    for objective in ("causal", "prefix")
    for approximator in ("additive", "cross-attention")
    for positions in ("none", "reversed", "relative")
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def recommender(
    objective: str, approximator: str, positions: str, delta: float = 0.5, dropped: float = 0.1
) -> Recommender:
    """A small model with weights large enough for every path to matter."""
    config = ModelConfig(
        objective=objective,
        approximator=approximator,
        positions=positions,
        width=16,
        heads=2,
        max_length=8,
        delta=delta,
        dropout=dropped,
        embedding_dropout=dropped,
        init_std=1.0,
    )
    model = Recommender(config, 20, generator())
    if positions == "relative":
        with torch.no_grad():
            model.distance.normal_(generator=generator(1))
    return model


def batch(model: Recommender, histories: list[list[int]], width: int) -> Batch:
    """Histories, each with its target last, as one batch with lines of ``width`` cells."""
    rows = training_rows(pack(histories), model.config.objective, model.config.max_length)
    chosen = np.arange(len(rows))
    if not model.causal:  # of all prefixes, the longest of each history
        chosen = np.cumsum([len(history) - 1 for history in histories]) - 1
    if model.attends_padding:
        width = model.config.max_length
    return make_batch(
        rows,
        chosen,
        width,
        with_seen=model.repeat_bias is not None,
        one_history_per_line=model.attends_padding,
    )


def predict(model: Recommender, items: list[list[int]], steps: int = 3) -> torch.Tensor:
    draws = InferenceNoise.of(model.config, steps, 0, torch.device("cpu"))
    with torch.no_grad():
        return model.predict(torch.tensor(items), steps, draws)


@pytest.mark.parametrize(("objective", "approximator", "positions"), VARIANTS)
def test_padding_changes_nothing(objective: str, approximator: str, positions: str) -> None:
    model = recommender(objective, approximator, positions)
    bare = predict(model, [[3, 1, 4]])
    padded = predict(model, [[3, 1, 4, 0, 0, 0], [5, 9, 2, 6, 5, 3]])
    assert torch.allclose(bare[0], padded[0], atol=1e-5)
    assert not torch.allclose(padded[0], padded[1], atol=1e-2)


def test_released_padding_is_attended_to_and_scored() -> None:
    config = small("released", max_length=8, delta=0, init_std=1.0).model
    model = Recommender(replace(config, dropout=0, embedding_dropout=0), 20, generator())
    short, long = (torch.tensor([items]) for items in ([3, 1, 0, 0], [3, 1, 0, 0, 0, 0, 0, 0]))
    draws = InferenceNoise.of(config, 1, 0, torch.device("cpu"))
    with torch.no_grad():
        few, many = (model.predict(items, 1, draws) for items in (short, long))
        assert not torch.allclose(few, many, atol=1e-3)
        some = batch(model, [[3, 1, 4]], 8)
        assert some.items.tolist() == long.tolist()
        before = model.loss(some, generator())
        scored = many @ model.items.weight.T  # padding is a candidate
        expected = torch.nn.functional.cross_entropy(scored, torch.tensor([4]))
        assert before.item() == pytest.approx(expected.item(), rel=1e-4)
        # Lists are made with full rows and without padding.
        listed = scores(model, pack([[3, 1]]), runtime=Runtime(device="cpu", precision="fp32"))
    assert torch.allclose(listed[0, 1:], scored[0, 1:], atol=1e-4)
    assert listed[0, 0] == -torch.inf


@pytest.mark.parametrize(("objective", "approximator", "positions"), VARIANTS)
def test_histories_of_one_line_do_not_meet(
    objective: str, approximator: str, positions: str
) -> None:
    # Without noise the loss is a function of the histories alone.
    model = recommender(objective, approximator, positions, delta=0, dropped=0)
    one, other = [[3, 1, 4, 7]], [[2, 7, 1, 8, 2, 9]]
    alone = [model.loss(batch(model, history, 8), generator()).item() for history in (one, other)]
    lengths = (1, 1) if objective == "prefix" else (3, 5)
    together = batch(model, one + other, 8)
    assert together.items.tolist() == [[2, 7, 1, 8, 2, 3, 1, 4]]
    expected = np.average(alone, weights=lengths)
    assert model.loss(together, generator()).item() == pytest.approx(expected, rel=1e-5)
    assert alone[0] != pytest.approx(alone[1], rel=1e-2)


@pytest.mark.parametrize("approximator", ["additive", "cross-attention"])
@pytest.mark.parametrize("positions", ["none", "relative"])
def test_causal_leaks_nothing_from_the_future(approximator: str, positions: str) -> None:
    model = recommender("causal", approximator, positions)

    def hidden(items: list[int]) -> torch.Tensor:
        """What every position predicts, with the position's own target and noise as input."""
        row = torch.tensor([items])
        visible = model._visible(row)
        history = model.norm_items(model.items(row))
        signal = torch.roll(history, -1, 1)
        z = model.approximator(history, signal, history, visible)
        return model.transformer(z, model._bias(visible))[0]

    with torch.no_grad():
        one, other = hidden([3, 1, 4, 1, 5, 9]), hidden([3, 1, 4, 1, 8, 2])
    # Position 3's own input holds its target, item 4; what lies before knows neither.
    assert torch.allclose(one[:3], other[:3], atol=1e-6)
    assert not torch.allclose(one[3], other[3], atol=1e-3)


@pytest.mark.parametrize("approximator", ["additive", "cross-attention"])
@pytest.mark.parametrize("positions", ["none", "relative"])
def test_causal_training_shows_a_position_its_own_target_and_nothing_later(
    approximator: str, positions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = recommender("causal", approximator, positions, dropped=0)
    predicted = []
    queries = model.queries
    monkeypatch.setattr(model, "queries", lambda x_0: predicted.append(x_0) or queries(x_0))
    with torch.no_grad():
        for history in ([3, 1, 4, 1, 5, 9], [3, 1, 4, 1, 8, 9]):
            model.loss(batch(model, [history], 8), generator())
    apart = (predicted[0] - predicted[1]).abs().amax(1)
    assert len(apart) == 5
    assert apart[:3].max() < 1e-5
    assert apart[3:].min() > 1e-3  # its target is another; then its items are


@pytest.mark.parametrize("approximator", ["additive", "cross-attention"])
@pytest.mark.parametrize("positions", ["none", "reversed", "relative"])
def test_causal_inference_is_the_training_pass(approximator: str, positions: str) -> None:
    """The cached keys and values give what one pass over the whole row gives."""
    model = recommender("causal", approximator, positions)
    items = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 0, 0]])
    draws = InferenceNoise.of(model.config, 1, 0, torch.device("cpu"))
    lengths = torch.tensor([5, 3])
    with torch.no_grad():
        cached = model.predict(items, 1, draws)
        offsets = (lengths[:, None] - 1 - torch.arange(5)).clamp(min=0)
        history = model._history(model.items(items), offsets, None)
        noised = model.diffusion.q_sample(
            model.items(torch.roll(items, -1, 1)),
            draws.context_step[offsets],
            draws.context_noise[offsets],
        )
        signal = noised + model.step()[draws.context_step[offsets]]
        last = torch.arange(2), lengths - 1
        signal[last] = draws.start + model.step()[32]
        visible = model._visible(items)
        z = model.approximator(history, draws.weight[offsets] * signal, history, visible)
        whole = model.transformer(z, model._bias(visible))[last]
    assert torch.allclose(cached, whole, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_cross_attention_is_the_linear_form_of_the_paper(causal: bool) -> None:
    """Row j: softmax(Q_j) (softmax(K)^T V), the key softmax over the positions it sees."""
    torch.manual_seed(0)
    layer = CrossAttention(ModelConfig(width=8, heads=2))
    history, target = torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    visible = torch.ones(5, 5, dtype=torch.bool)
    visible = visible.tril() if causal else visible
    with torch.no_grad():
        z = layer(history, target, history, visible[None, None])
        query = layer.query(target)[0]
        key, value = layer.key_value(history)[0].chunk(2, -1)
        rows = []
        for row in range(5):
            heads = []
            for part in (slice(0, 4), slice(4, 8)):
                seen = visible[row]
                spread = key[seen, part].softmax(0)  # over positions
                heads.append(query[row, part].softmax(-1) @ (spread.T @ value[seen, part]))
            rows.append(torch.cat(heads))
        expected = history[0] + layer.out(torch.stack(rows))
    assert torch.allclose(z[0], expected, atol=1e-5)


def test_released_cross_attention_normalises_keys_over_heads() -> None:
    """Row j: softmax(Q_j) (K'^T V), where K' shares each position's features among the heads."""
    torch.manual_seed(0)
    layer = HeadwiseCrossAttention(ModelConfig(width=8, heads=2))
    history, target = torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    with torch.no_grad():
        z = layer(history, target, history, torch.ones(1, 1, 5, 5, dtype=torch.bool))
        query = layer.query(target)[0]
        key, value = layer.key_value(history)[0].chunk(2, -1)
        shared = key.view(5, 2, 4).softmax(1).view(5, 8)
        heads = [
            query[:, part].softmax(-1) @ (shared[:, part].T @ value[:, part])
            for part in (slice(0, 4), slice(4, 8))
        ]
        expected = history[0] + layer.out(torch.cat(heads, 1))
    assert torch.allclose(z[0], expected, atol=1e-5)


def test_targets_are_noised_at_every_step_with_the_offset_that_is_asked_for() -> None:
    shifted = small("diffurecsys", offset_scale=99.0).model
    means = {}
    for config in (shifted, replace(shifted, offset="none")):
        model = Recommender(config, 20, generator())
        with torch.no_grad():
            for parameter in model.step.down_proj.parameters():
                parameter.zero_()  # no step embeddings
            x_s = model._noised(torch.zeros(4000, config.width), generator())
        means[config.offset] = x_s.mean(1)
    assert means["none"].abs().max() < 1
    # An offset of 99 tells each row's step, by 99 sqrt(1 - alpha-bar_s); the last ones look alike.
    expected = (1 - model.diffusion.alpha_bar[1:]).sqrt()
    difference = (means["mean"].unsqueeze(1) / 99 - expected).abs()
    assert difference.min(1).values.max() < 0.02
    assert set(difference[:, :10].argmin(1).tolist()) == set(range(10))


def test_every_step_is_trained() -> None:
    """With few steps and large targets, a row's step shows in what is left of its target."""
    model = Recommender(small("diffurec", timesteps=4).model, 20, generator())
    with torch.no_grad():
        for parameter in model.step.down_proj.parameters():
            parameter.zero_()
        scale = model._noised(torch.full((400, model.config.width), 1e4), generator()).mean(1) / 1e4
    expected = model.diffusion.alpha_bar[1:].sqrt()
    assert set((scale.unsqueeze(1) - expected).abs().argmin(1).tolist()) == {0, 1, 2, 3}


def test_the_noise_of_listing_has_its_moments() -> None:
    config = small("diffurec", width=256).model
    draws = InferenceNoise.of(config, 4, 0, torch.device("cpu"))
    assert draws.weight.mean().item() == pytest.approx(config.delta, rel=0.05)
    assert draws.weight.std().item() == pytest.approx(config.delta, rel=0.05)
    for noise in (draws.start, draws.reverse, draws.context_noise):
        assert noise.mean().item() == pytest.approx(0, abs=0.2)
        assert noise.std().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("preset", [*PRESETS, "relative"])
def test_gradient_reaches_every_declared_parameter(preset: str) -> None:
    # A fused bias holds the keys', which cancels in their softmax, as in every Transformer.
    relative = preset == "relative"
    chosen = small("best", positions="relative") if relative else small(preset)
    model = Recommender(chosen.model, 20, generator())
    histories = torch.randint(1, 21, (16, 7), generator=generator()).tolist()
    model.loss(batch(model, histories, 24), generator()).backward()
    untouched = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert untouched == []


def test_padding_is_never_scored_and_never_learns() -> None:
    model = recommender("causal", "additive", "none")
    assert scores(model, pack([[1], [2, 3]]))[:, 0].tolist() == [-torch.inf, -torch.inf]
    some = batch(model, [[1, 2, 3]], 4)
    with torch.no_grad():
        before = model.loss(some, generator())
        model.items.weight[0] = 100.0
        after = model.loss(some, generator())
    assert after.item() == pytest.approx(before.item(), rel=1e-5)


def test_item_dropout_hides_whole_items_in_training_alone() -> None:
    shown = recommender("prefix", "none", "reversed", dropped=0)
    hidden = Recommender(replace(shown.config, item_dropout=0.9999), 20, generator())
    hidden.load_state_dict(shown.state_dict())
    for model, same in ((shown, False), (hidden, True)):
        losses = [
            model.loss(batch(model, [history], 8), generator()).item()
            for history in ([1, 2, 3, 9], [4, 5, 6, 9])
        ]
        assert (losses[0] == losses[1]) is same
    assert torch.equal(predict(hidden, [[1, 2, 3]]), predict(shown, [[1, 2, 3]]))


@pytest.mark.slow
@pytest.mark.parametrize("n_items", sample([9000, 40_000], 0))
def test_cross_entropy_and_its_gradients_are_the_textbook_ones(n_items: int) -> None:
    hidden = torch.randn(2000, 8, generator=generator()).requires_grad_()
    weight = torch.randn(n_items + 1, 8, generator=generator(1)).requires_grad_()
    target = torch.randint(1, n_items + 1, (2000,), generator=generator(2))
    expected = torch.nn.functional.cross_entropy(hidden @ weight[1:].T, target - 1)
    expected_gradients = torch.autograd.grad(expected, (hidden, weight))
    loss = cross_entropy(hidden, weight, target)
    gradients = torch.autograd.grad(3 * loss, (hidden, weight))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(one, 3 * other, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_directions_and_their_gradients_are_the_textbook_ones(precision: str) -> None:
    x = torch.randn(7, 5, generator=generator())
    x[3] = 0
    x.requires_grad_()
    slope = torch.randn(7, 5, generator=generator(1))
    slope[3] = 0
    expected = torch.nn.functional.normalize(x, dim=1)
    expected_gradient = torch.autograd.grad(expected, x, slope)[0]
    with Runtime(device="cpu", precision=precision).applied():
        result = directions(x)
        assert torch.allclose(result, expected)
        assert torch.allclose(
            torch.autograd.grad(result, x, slope)[0], expected_gradient, atol=1e-6
        )


def some_seen(target: torch.Tensor, n_items: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Five items a row, each pair once; every other row has had its own target."""
    row = torch.arange(len(target)).repeat_interleave(5)
    item = torch.randint(1, n_items + 1, (len(row),), generator=generator(5))
    item[::10] = target[::2]
    pairs = torch.stack([row, item], 1).unique(dim=0)
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous()


@pytest.mark.slow
@pytest.mark.parametrize("n_items", sample([9000, 40_000], 0))
def test_what_was_seen_gets_its_bias(n_items: int) -> None:
    hidden = torch.randn(2000, 8, generator=generator()).requires_grad_()
    weight = torch.randn(n_items + 1, 8, generator=generator(1)).requires_grad_()
    target = torch.randint(1, n_items + 1, (2000,), generator=generator(2))
    bias = torch.tensor(2.5, requires_grad=True)
    row, item = some_seen(target, n_items)
    biased = (hidden @ weight[1:].T).index_put((row, item - 1), bias, accumulate=True)
    expected = torch.nn.functional.cross_entropy(biased, target - 1)
    expected_gradients = torch.autograd.grad(expected, (hidden, weight, bias))
    loss = cross_entropy(hidden, weight, target, bias, (row, item))
    gradients = torch.autograd.grad(3 * loss, (hidden, weight, bias))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(one, 3 * other, atol=1e-5)


def test_sampled_cross_entropy_estimates_the_full_one() -> None:
    n_items = 500
    hidden = torch.randn(40, 8, generator=generator()).requires_grad_()
    weight = torch.randn(n_items + 1, 8, generator=generator(1)).requires_grad_()
    target = torch.randint(1, n_items + 1, (40,), generator=generator(2))
    bias = torch.tensor(2.5, requires_grad=True)
    row, item = some_seen(target, n_items)
    biased = (hidden @ weight[1:].T).index_put((row, item - 1), bias, accumulate=True)
    full = torch.nn.functional.cross_entropy(biased, target - 1)
    expected_gradients = torch.autograd.grad(full, (hidden, weight, bias))
    skewed = pack([np.minimum(np.arange(1, 5000) % 977, n_items - 1) + 1])
    negatives = Negatives.of(skewed, n_items, 100_000, torch.device("cpu"))
    drawn = negatives.draw(generator(3))
    sampled = sampled_cross_entropy(hidden, weight, target, *drawn, bias, (row, item))
    gradients = torch.autograd.grad(sampled, (hidden, weight, bias))
    assert sampled.item() == pytest.approx(full.item(), rel=0.01)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert torch.linalg.vector_norm(one - other) < 0.05 * torch.linalg.vector_norm(other)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    x = torch.ones(1000, 1003)
    dropped = dropout(x, 0.3, generator())
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1, abs=0.005)
    assert dropout(x, 0.3, None) is x
    assert dropout(x, 0.9999, generator()).mean().item() == pytest.approx(1, abs=0.1)


def test_a_configuration_says_what_is_wrong() -> None:
    for wrong, message in [
        ({"width": 30, "heads": 4}, "heads = 4"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"steps": 33}, r"1\.\.32"),
        ({"approximator": "mlp"}, "additive, cross-attention"),
        ({"width": "wide"}, "a whole number"),
        ({"blocks": 0}, "1 or more"),
        ({"padding": "attended"}, "goes with objective = prefix"),
        ({"padding": "attended", "objective": "prefix", "similarity": "cosine"}, "dot"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            ModelConfig(**wrong)
    with pytest.raises(ConfigurationError, match="below patience 2"):
        TrainingConfig(decay="plateau", decay_every=2, patience=2)
    with pytest.raises(ConfigurationError, match="n_items = 0"):
        Recommender(ModelConfig(), 0)


@pytest.mark.parametrize(("objective", "approximator", "positions"), VARIANTS)
def test_a_callback_sees_every_state_and_changes_nothing(
    objective: str, approximator: str, positions: str
) -> None:
    model = recommender(objective, approximator, positions)
    items = torch.tensor([[3, 1, 4], [5, 9, 0]])
    draws = InferenceNoise.of(model.config, 3, 0, torch.device("cpu"))
    states: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    with torch.no_grad():
        alone = model.predict(items, 3, draws)
        seen = model.predict(items, 3, draws, lambda *state: states.append(state))
    assert torch.equal(seen, alone)
    if not model.denoises:
        assert states == []
        return
    assert [step for step, _, _ in states] == model.diffusion.respaced(3)[::-1]
    assert torch.equal(states[0][1], draws.start.expand(2, -1))
    assert torch.equal(states[-1][2], alone)
