"""Measures of the model side: training, inference, quality, top-K."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys.evaluation.protocol import evaluate
from recsys.evaluation.results import PROTOCOLS
from recsys.evaluation.splits import HeldOut, Split, leave_one_out
from recsys.histories import Histories
from recsys.model.presets import resolve
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer, top_k
from recsys.model.top_k import top_k_items
from recsys.training.batches import training_rows
from recsys.training.checkpoint import load, save
from recsys.training.trainer import fit
from tests.benchmarks.common import Measured, Setup, rate
from tests.benchmarks.machine import network_flops, scoring_flops
from tests.benchmarks.reference import Reference, ReferenceScorer, gradient_steps

K = 20
DIFFUREC = resolve("diffurec", {})
BEST = resolve("best", {"max_length": DIFFUREC.model.max_length})  # it looks as far back


def prepare(setup: Setup) -> Measured:
    """Train `diffurec` for a moment: the weights that inference and quality share."""
    split, n_items = _data(setup)
    train = _targets(split.train, setup.sizes.quality_targets)
    preset = resolve("diffurec", {"batch_size": 64})  # more steps from the few targets
    runtime = Runtime(setup.device)
    fitted = fit(train, n_items, preset, seed=0, runtime=runtime, validate=None, epochs=1)
    save(Path(setup.folder) / "diffurec", fitted.model, {})
    return Measured()


def _train(setup: Setup, *, one_pass: bool) -> Measured:
    """Train two epochs; the first one warms up."""
    split, n_items = _data(setup)
    preset, most = DIFFUREC, setup.sizes.prefix_targets
    if one_pass:
        preset, most = BEST, setup.sizes.causal_targets
    train, runtime = _targets(split.train, most), Runtime(setup.device)
    fitted = fit(train, n_items, preset, seed=0, runtime=runtime, validate=None, epochs=2)
    rows = training_rows(train, preset.model.objective, preset.model.max_length)
    flops = network_flops(preset.model, rows.lengths)
    flops += scoring_flops(preset.model.width, n_items, rows.targets)
    speed = {"rate": fitted.log[-1].targets_per_second}
    return Measured(speed, 3 * flops / rows.targets, _kind(runtime))


train_prefix = partial(_train, one_pass=False)
train_one_pass = partial(_train, one_pass=True)


def train_reference(setup: Setup) -> Measured:
    """Every prefix padded to L; after one gradient step to warm up."""
    split, n_items = _data(setup)
    wanted = setup.sizes.reference_steps
    train = _targets(split.train, DIFFUREC.training.batch_size * (1 + wanted))
    model = Reference(DIFFUREC.model, n_items).to(Runtime(setup.device).torch_device)
    steps = gradient_steps(model, train, 10**6, 0, DIFFUREC)
    return Measured(
        rate(lambda: sum(rows for rows, _ in islice(steps, wanted)), 0, lambda: next(steps))
    )


def _serve(setup: Setup, *, steps: int | None) -> Measured:
    """Top-K lists: the reference's weights and so many steps; or `best`, its weights untrained.

    A prefix runs whole at every step, a causal history once, whatever the steps.
    """
    split, n_items = _data(setup)
    model = Recommender(BEST.model, n_items) if steps is None else _weights(setup)
    most = setup.sizes.users if (steps or BEST.model.steps) == 1 else setup.sizes.users_all_steps
    users, runtime = _some(split.test, most).history, Runtime(setup.device)

    def lists(users: Histories = users) -> int:
        return sum(len(b.items) for b in top_k(model, users, K, steps=steps, runtime=runtime))

    figures = rate(lists, setup.sizes.seconds, lambda: lists(users[:1]))
    flops = (steps or 1) * network_flops(model.config, users.lengths) / len(users)
    flops += scoring_flops(model.config.width, n_items, 1)
    return Measured(figures, flops, _kind(runtime))


serve_diffurec_32 = partial(_serve, steps=32)
serve_diffurec_1 = partial(_serve, steps=1)
serve_best = partial(_serve, steps=None)


def serve_reference(setup: Setup) -> Measured:
    """All positions at every one of T steps, the full score matrix, then its top K."""
    split, n_items = _data(setup)
    scorer, k = _reference(setup), min(K, n_items)
    users = _some(split.test, setup.sizes.reference_users).history

    def lists(users: Histories = users) -> int:
        return sum(len(scores.topk(k).indices.cpu()) for _, scores in scorer(users))

    return Measured(rate(lists, setup.sizes.seconds, lambda: lists(users[:1])))


def _quality(setup: Setup, *, steps: int | None) -> Measured:
    """Rank held-out items with the same weights, ours with so many steps or the reference."""
    ranked = _some(_data(setup)[0].test, setup.sizes.quality_users)
    ours = ModelScorer(_weights(setup), steps, runtime=Runtime(setup.device))
    found = evaluate(ours if steps else _reference(setup), ranked)
    return Measured({name: found.metrics(name)["ndcg@10"] for name in PROTOCOLS})


quality_32 = partial(_quality, steps=32)
quality_1 = partial(_quality, steps=1)
quality_reference = partial(_quality, steps=None)


def choose_ours(setup: Setup) -> Measured:
    """Predicted targets to the K best items, scores a chunk at a time."""
    predicted, weight = _vectors(setup)

    def work() -> int:
        return len(top_k_items(predicted, weight, K)[1].cpu()) * (len(weight) - 1)

    return Measured(rate(work, setup.sizes.seconds), scoring_flops(len(weight[0]), 1, 1), "fp32")


def choose_reference(setup: Setup) -> Measured:
    """The whole float32 score matrix, every row sorted."""
    predicted, weight = _vectors(setup)

    def work() -> int:
        scores = (predicted @ weight[1:].T).cpu().numpy()
        return len(np.argsort(-scores, axis=1)[:, :K]) * scores.shape[1]

    return Measured(rate(work, setup.sizes.seconds))


def _vectors(setup: Setup) -> tuple[Tensor, Tensor]:
    """Return predicted targets and item embeddings, of which row 0 is padding."""
    generator, device = torch.Generator().manual_seed(0), Runtime(setup.device).torch_device
    predicted, weight = (
        torch.randn(rows, DIFFUREC.model.width, generator=generator).to(device)
        for rows in (setup.sizes.queries, 1 + setup.sizes.catalogue)
    )
    return predicted, weight


def _kind(runtime: Runtime) -> str:
    return "bf16" if runtime.bf16 else "fp32"


def _data(setup: Setup) -> tuple[Split, int]:
    with np.load(Path(setup.folder) / "histories.npz") as held:
        histories = Histories(held["items"], held["starts"], held["ends"])
    return leave_one_out(histories), int(histories.items.max())


def _weights(setup: Setup) -> Recommender:
    return load(Path(setup.folder) / "diffurec", setup.device)[0]


def _reference(setup: Setup) -> ReferenceScorer:
    return ReferenceScorer(Reference.of(_weights(setup)).to(Runtime(setup.device).torch_device))


def _some(held_out: HeldOut, most: int) -> HeldOut:
    users = np.random.default_rng(0).permutation(len(held_out))[:most]
    return HeldOut(held_out.history[users], held_out.target[users])


def _targets(train: Histories, most: int) -> Histories:
    """Return users, in random order, with about so many training targets; all if fewer."""
    shuffled = train[np.random.default_rng(0).permutation(len(train))]
    reached = np.cumsum(np.maximum(shuffled.lengths - 1, 0))
    return shuffled[: int(np.searchsorted(reached, most)) + 1]
