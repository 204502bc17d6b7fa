from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.evaluation.protocol import evaluate
from recsys.evaluation.splits import leave_one_out
from recsys.model.inputs import InferenceNoise
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer
from recsys.training.batches import make_batch, training_rows
from tests.benchmarks.reference import (
    Draw,
    Prefixes,
    Reference,
    ReferenceScorer,
    fit_reference,
    padded,
)
from tests.worlds import small, successor_world

FP32 = Runtime(device="cpu", precision="fp32")
STRONG = {"delta": 0.5, "dropout": 0.0, "embedding_dropout": 0.0, "max_length": 12}


def untrained(**overrides: object) -> Recommender:
    config = small("diffurec", **STRONG, **overrides).model
    return Recommender(replace(config, init_std=0.5), 30, torch.Generator().manual_seed(3))


def same_noise(draws: InferenceNoise) -> Draw:
    """Give the reference, which pads on the left, the noise that ours was given."""
    steps: Iterator[Tensor] = iter(draws.reverse.flip(0))
    begun = False

    def draw(shape: tuple[int, ...]) -> Tensor:
        nonlocal begun
        if len(shape) == 3:  # lambda, of which ours draws the deviation from delta
            return (draws.weight.flip(0)[-shape[1] :] / 0.5 - 1).expand(shape)
        drawn, begun = (next(steps) if begun else draws.start), True
        return drawn.expand(shape)

    return draw


@pytest.mark.slow
def test_same_weights_and_noise_give_the_logits_of_ours() -> None:
    model = untrained(activation="relu")  # the two have different forms of GELU
    reference = Reference.of(model).eval()
    histories = successor_world(users=40).histories
    draws = InferenceNoise.of(model.config, 32, 0, torch.device("cpu"))
    theirs = reference.scores(padded(histories, 12), same_noise(draws))
    ours = torch.zeros_like(theirs)
    for rows, scores in ModelScorer(model, 32, 0, FP32)(histories):
        ours[torch.from_numpy(rows)] = scores
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
    apart = reference.scores(padded(histories, 12), lambda shape: torch.randn(shape))
    assert float((apart - theirs)[:, 1:].abs().max()) > 0.1  # the noise counts


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_the_training_loss_is_the_loss_of_ours(activation: str) -> None:
    """On average over the noise, whose draws the two order differently; rows are the same."""
    model = untrained(activation=activation)
    reference = Reference.of(model)
    histories = successor_world(users=64).histories
    padded = Prefixes(histories, 12)
    rows = training_rows(histories, "prefix", 12)
    assert len(padded) == len(rows)
    pairs = [padded[at] for at in range(len(padded))]
    items, targets = (torch.stack(column) for column in zip(*pairs, strict=True))
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    ours_given = make_batch(rows, np.arange(len(rows)), 12)
    with torch.no_grad():
        ours = torch.stack([model.loss(ours_given, generator) for _ in range(20)])
        theirs = torch.stack([reference.loss(items, targets) for _ in range(20)])
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), rel=0.01)


@pytest.mark.slow
def test_it_learns_and_its_weights_serve_in_ours() -> None:
    world = successor_world(users=80)
    split = leave_one_out(world.histories)
    preset = small("diffurec", learning_rate=0.01, batch_size=64, max_length=12, steps=4)
    reference = fit_reference(split.train, world.n_items, 6, seed=0, preset=preset)
    theirs = evaluate(ReferenceScorer(reference), split.test).masked
    ours = evaluate(ModelScorer(reference.as_recommender(), runtime=FP32), split.test).masked
    assert theirs["ndcg@10"] > 0.9
    assert ours["ndcg@10"] == pytest.approx(theirs["ndcg@10"], abs=0.01)
