"""What a model's diffusion does: quality by reverse steps and noise, and where its draws lie.

The second is Figure 3 of arXiv 2410.19429: reconstructed targets in two dimensions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recsys.evaluation.metrics import ndcg
from recsys.evaluation.protocol import ranks
from recsys.histories import INPUT
from recsys.model.diffusion import reverse
from recsys.model.inputs import InferenceNoise
from recsys.model.loss import directions
from recsys.model.scoring import left_aligned

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray
    from torch import Tensor

    from recsys.evaluation.results import Protocol
    from recsys.evaluation.splits import HeldOut
    from recsys.histories import Histories, ItemIds
    from recsys.model.recommender import Recommender
    from recsys.model.scoring import ModelScorer

_MOST_USERS = 256
_DELTAS = (0.1, 1.0)  # beside the model's own
_STEPS = (1, 2, 8)  # beside all of them
_ROWS = 256  # of a batch
_TARGETS, _DRAWS = 6, 16
_LIST_LENGTH = 10
_DIGITS = 4


@dataclass(frozen=True)
class StepsQuality:
    """NDCG@10 of one number of reverse steps at one weight of the noised target.

    Attributes:
        delta: the weight; at 0, and 0 steps, the network reads the history alone.
        steps: reverse steps.
        ndcg: mean over the users.
        error: its standard error.
        gain: mean difference to the same network on the history alone.
        gain_error: its standard error over the same users, whose own spread falls out.
    """

    delta: float
    steps: int
    ndcg: float
    error: float
    gain: float
    gain_error: float


@dataclass(frozen=True)
class Draws:
    """Predicted targets of a few histories, each from many draws of the noise, at one weight.

    Attributes:
        delta: the weight of the noised target.
        silhouette: mean over the draws (Rousseeuw 1987), in all D dimensions: 1 where each lies by
            those of its history, 0 where it lies as near to those of another one.
        overlap: mean share of the first ten items that two draws of a history have in common.
        hits: by history, the share of the draws whose first ten items hold the target.
        places: by history, the two coordinates of each draw.
    """

    delta: float
    silhouette: float
    overlap: float
    hits: list[float]
    places: list[list[list[float]]]


@dataclass(frozen=True)
class DiffusionReport:
    """What a model's diffusion does.

    Attributes:
        users: how many `qualities` are means over.
        delta: the model's own weight of the noised target.
        steps: reverse steps of its lists.
        qualities: the history alone first; then by weight, the model's own first, and steps.
        targets: index of the item that each history of `draws` is followed by.
        target_places: its two coordinates.
        shown: share of the variance of all directions that two dimensions show.
        draws: the model's own weight first; none where fewer than two targets are known.
    """

    users: int
    delta: float
    steps: int
    qualities: list[StepsQuality]
    targets: list[int]
    target_places: list[list[float]]
    shown: float
    draws: list[Draws]

    @classmethod
    def of(cls, scorer: ModelScorer, held_out: HeldOut, protocol: Protocol) -> Self | None:
        """Measure a model on some of the held-out users; None where it has no diffusion.

        Args:
            scorer: the model as it makes lists.
            held_out: users and their targets, of which a sample is asked.
            protocol: whether lists leave out what a user has had.
        """
        model, config = scorer.model, scorer.model.config
        if not model.denoises or not len(held_out):
            return None
        model.to(scorer.runtime.torch_device)
        generator = np.random.default_rng(0)
        sample = held_out[generator.permutation(len(held_out))[:_MOST_USERS]]
        deltas = list(dict.fromkeys((config.delta, *_DELTAS)))
        steps = config.steps if scorer.steps is None else scorer.steps
        counts = sorted(
            {steps, config.timesteps, *(few for few in _STEPS if few < config.timesteps)}
        )
        return cls(
            users=len(sample),
            delta=config.delta,
            steps=steps,
            qualities=_qualities(scorer, sample, protocol, deltas, counts),
            **_draws(scorer, sample, deltas, steps),
        )

    def to_dict(self, items: ItemIds) -> dict[str, Any]:
        """Return what `models.config` keeps as ``diffusion``, items by their ids."""
        targets = items.of_indices(np.array(self.targets, dtype=np.int64)).to_pylist()
        return {**asdict(self), "targets": targets}


def _qualities(
    scorer: ModelScorer,
    held_out: HeldOut,
    protocol: Protocol,
    deltas: list[float],
    counts: list[int],
) -> list[StepsQuality]:
    inputs = held_out.history.of_role(INPUT)
    users = np.flatnonzero(inputs.lengths)

    def score(delta: float, counts: list[int]) -> list[NDArray[np.float64]]:
        """Return the (U,) NDCG@10 of each number of reverse steps."""
        return [
            ndcg(ranks(partial(scorer.score, users=users, queries=queries), held_out)[protocol], 10)
            for queries in _queries(scorer, inputs[users], delta, counts)
        ]

    (alone,) = score(0, [1])
    qualities = [_quality(0, 0, alone, alone)]
    for delta in deltas:
        for steps, scores in zip(counts, score(delta, counts), strict=True):
            qualities.append(_quality(delta, steps, scores, alone))
    return qualities


def _queries(
    scorer: ModelScorer, histories: Histories, delta: float, counts: list[int]
) -> list[Tensor]:
    """Return the queries (U, D) of each number of reverse steps; histories are read once for all.

    Rows are more than in `ModelScorer.encode`: a reverse step does little for each.
    """
    model, device = scorer.model, scorer.runtime.torch_device
    noises = [InferenceNoise.of(model.config, n, scorer.seed, device, delta) for n in counts]
    order = np.argsort(histories.lengths, kind="stable")
    queries = [torch.empty(len(order), model.config.width, device=device) for _ in counts]
    with torch.no_grad(), scorer.runtime.applied():
        for start in range(0, len(order), _ROWS):
            users = order[start : start + _ROWS]
            items = _rows(model, histories[users]).to(device)
            approximate = model.approximation(items, noises[0])
            x, rows = noises[0].start.expand(len(items), -1), torch.from_numpy(users).to(device)
            for steps, noise, filled in zip(counts, noises, queries, strict=True):
                x_0 = reverse(approximate, x, noise.reverse, model.diffusion, steps)
                filled[rows] = model.queries(x_0)
    return queries


def _rows(model: Recommender, histories: Histories) -> Tensor:
    """Return histories as the model reads them: (B, L) int64, left-aligned."""
    longest = model.config.max_length
    width = longest if model.attends_padding else min(longest, int(histories.lengths.max()))
    starts = np.maximum(histories.starts, histories.ends - longest)
    return torch.from_numpy(left_aligned(histories.items, starts, histories.ends, width))


def _quality(
    delta: float, steps: int, scores: NDArray[np.float64], alone: NDArray[np.float64]
) -> StepsQuality:
    def error(values: NDArray[np.float64]) -> float:
        return float(values.std() / len(values) ** 0.5)

    gain = scores - alone
    return StepsQuality(
        delta, steps, float(scores.mean()), error(scores), float(gain.mean()), error(gain)
    )


def _draws(
    scorer: ModelScorer, held_out: HeldOut, deltas: list[float], steps: int
) -> dict[str, Any]:
    """Return the fields of a report that Figure 3 is drawn from."""
    users = _with_different_targets(held_out)
    targets = held_out.target[users]
    if len(targets) < 2:
        return {"targets": [], "target_places": [], "shown": 0.0, "draws": []}
    histories = held_out.history.of_role(INPUT)[users]
    by_delta = [_draw(scorer, histories, targets, delta, steps) for delta in deltas]
    own = directions(scorer.model.items.weight.detach()[targets].float()).cpu()
    points, shown = _in_two_dimensions([own, *(drawn.flatten(0, 1) for drawn, _, _ in by_delta)])
    return {
        "targets": targets.tolist(),
        "target_places": points[0],
        "shown": shown,
        "draws": [
            Draws(delta, _silhouette(drawn), overlap, hits, _by_history(places))
            for delta, (drawn, overlap, hits), places in zip(
                deltas, by_delta, points[1:], strict=True
            )
        ],
    }


def _with_different_targets(held_out: HeldOut) -> NDArray[np.int64]:
    """Return the first users who have a history and a known target that no one before them has."""
    usable = np.flatnonzero((held_out.target > 0) & (held_out.history.of_role(INPUT).lengths > 0))
    _, firsts = np.unique(held_out.target[usable], return_index=True)
    return usable[np.sort(firsts)[:_TARGETS]]


def _draw(
    scorer: ModelScorer, histories: Histories, targets: NDArray[np.int32], delta: float, steps: int
) -> tuple[Tensor, float, list[float]]:
    """Return directions of the predicted targets (N, S, D), their overlap and their hits."""
    model, device = scorer.model, scorer.runtime.torch_device
    items, catalogue = _rows(model, histories).to(device), model.catalogue().detach()[1:]
    length = min(_LIST_LENGTH, model.n_items)
    drawn, listed = [], []
    with torch.no_grad(), scorer.runtime.applied():
        for seed in range(scorer.seed, scorer.seed + _DRAWS):
            noise = InferenceNoise.of(model.config, steps, seed, device, delta)
            x_0 = model.predict(items, steps, noise)
            drawn.append(directions(x_0.float()).cpu())
            with torch.autocast(device.type, enabled=False):
                scores = model.queries(x_0) @ catalogue.T
            listed.append(scores.topk(length).indices.cpu() + 1)
    lists = torch.stack(listed, 1)  # (N, S, K)
    hits = (lists == torch.from_numpy(targets)[:, None, None]).any(2).double().mean(1)
    overlaps = [_overlap(of_history.numpy()) for of_history in lists]
    return torch.stack(drawn, 1), float(np.mean(overlaps)), hits.tolist()


def _overlap(lists: NDArray[np.int64]) -> float:
    """Return the mean share of items that two of (S, K) lists have in common."""
    _, counts = np.unique(lists, return_counts=True)
    count, length = lists.shape
    return float((counts * (counts - 1)).sum() / (count * (count - 1) * length))


def _silhouette(points: Tensor) -> float:
    """Return the mean silhouette of (N, S, D) points in N clusters; 0 for a point by itself."""
    clusters, size = points.shape[:2]
    flat = points.flatten(0, 1).double()
    distances = torch.cdist(flat, flat).view(clusters * size, clusters, size).sum(2)
    cluster = torch.arange(clusters).repeat_interleave(size).unsqueeze(1)
    within = distances.gather(1, cluster).squeeze(1) / (size - 1)
    other = (distances / size).scatter(1, cluster, torch.inf).amin(1)
    return float(((other - within) / torch.maximum(other, within).clamp(min=1e-12)).mean())


def _in_two_dimensions(groups: list[Tensor]) -> tuple[list[list[list[float]]], float]:
    """Project groups of (P, D) points onto their two principal components.

    Returns the coordinates by group, and the share of the variance that they show.
    """
    points = torch.cat(groups).double()
    centred = points - points.mean(0)
    _, spreads, axes = torch.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    flat = centred @ (axes * largest.sign()).T  # the sign of an axis is arbitrary
    places = [part.tolist() for part in flat.split([len(group) for group in groups])]
    variance = spreads**2
    rounded = [[[round(x, _DIGITS) for x in place] for place in part] for part in places]
    return rounded, float(variance[:2].sum() / variance.sum())


def _by_history(places: list[list[float]]) -> list[list[list[float]]]:
    return [places[start : start + _DRAWS] for start in range(0, len(places), _DRAWS)]
