"""Vectors for items that a model has not learnt, from those who took them first.

Where items compare by cosine, the loss moves an item's vector towards the queries of those who take
it, and away from all queries by how likely the item seemed there. So the mean query direction of
those who took a new item is, up to one linear map, the vector that training would give it. The map
is fitted on items that the model knows, folded in from as few interactions that it has not learnt
from: everybody's two newest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.histories import INPUT, TARGET
from recsys.model.loss import directions
from recsys.model.recommender import Recommender

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from recsys.histories import Histories
    from recsys.model.scoring import ModelScorer

_MOST_OF_ITEM = 32  # interactions that a new item's vector comes from, the first ones
_MOST = 100_000  # interactions of all new items together, the first of each item before the second
_CALIBRATION = 20_000  # interactions of known items
_NEWEST = 2  # of a user: the judged weights have not learnt from them
_RIDGE = 10.0  # interactions' worth of a map that turns nothing


def fold_in(
    scorer: ModelScorer, histories: Histories, n_items: int
) -> tuple[Recommender, NDArray[np.bool_]]:
    """Return the model with a vector for each new item that it can be given one.

    The same arguments give the same vectors.

    Args:
        scorer: a model over items 1..V that compares by cosine.
        histories: over items 1..``n_items``, of which those above V are new; nobody's newest items
            are left out. Vectors come from what is a target in them.
        n_items: at least V.

    Returns:
        The model over 1..``n_items``, and the (n_items + 1,) items above V that have a vector now:
        somebody took them after an item that the model knows. The others have a vector of zeros.
    """
    model = scorer.model
    has_vector = np.zeros(n_items + 1, dtype=bool)
    extended = _extended(model, n_items)
    users, places = _inside(histories, np.flatnonzero(histories.items > model.n_items))
    chosen = _first_of_each(histories.items[places], _MOST_OF_ITEM)[:_MOST]
    means, counts = _mean_queries(scorer, histories, users[chosen], places[chosen], n_items)
    new = np.flatnonzero(counts)
    if not len(new):
        return extended, has_vector
    matrix, offset = _calibrated(scorer, histories)
    known = model.items.weight.detach()[1:]
    length = torch.linalg.vector_norm(known, dim=1).median()
    index = torch.from_numpy(new).to(known.device)
    with torch.no_grad():
        extended.items.weight[index] = directions(means[index] @ matrix + offset) * length
    has_vector[new] = True
    return extended, has_vector


def _extended(model: Recommender, n_items: int) -> Recommender:
    """Return a copy of the model with rows of zeros for the items that it does not know."""
    extended = Recommender(model.config, n_items).to(model.items.weight.device)
    state = dict(model.state_dict())
    missing = n_items - model.n_items
    state["items.weight"] = torch.nn.functional.pad(state["items.weight"], (0, 0, 0, missing))
    extended.load_state_dict(state)
    return extended


def _inside(
    histories: Histories, places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the user of each place of the packed items, and those that are someone's target."""
    users = np.searchsorted(histories.starts, places, side="right") - 1
    inside = (users >= 0) & (places < histories.ends[np.maximum(users, 0)])
    if histories.roles is not None:
        inside &= (histories.roles[places] & TARGET) != 0
    return users[inside], places[inside]


def _first_of_each(items: NDArray[np.int32], most: int) -> NDArray[np.int64]:
    """Return positions of (N,) items: the first of every item, then the second ones, and so on."""
    order = np.argsort(items, kind="stable")
    begins = np.concatenate(([True], np.diff(items[order]) > 0))[: len(order)]
    firsts = np.flatnonzero(begins)
    nth = np.arange(len(order)) - np.repeat(firsts, np.diff(np.append(firsts, len(order))))
    order, nth = order[nth < most], nth[nth < most]
    chosen: NDArray[np.int64] = order[np.argsort(nth, kind="stable")]
    return chosen


def _mean_queries(
    scorer: ModelScorer,
    histories: Histories,
    users: NDArray[np.int64],
    places: NDArray[np.int64],
    n_items: int,
) -> tuple[Tensor, NDArray[np.int64]]:
    """Return (n_items + 1, D) means of the directions of the queries before some places, by item.

    And (n_items + 1,) of how many: a place with nothing before it that the model knows has none.
    """
    model = scorer.model
    # Twice the model's length, since what it does not know is dropped.
    begins = np.maximum(histories.starts[users], places - 2 * model.config.max_length)
    before = replace(histories, starts=begins, ends=places).of_role(INPUT)
    before = before.drop_unknown_items(model.n_items)
    has_query = before.lengths > 0
    items = histories.items[places][has_query].astype(np.int64)
    queries = directions(scorer.encode(before[has_query]))
    counts = np.bincount(items, minlength=n_items + 1)
    sums = torch.zeros(n_items + 1, queries.shape[1], device=queries.device)
    sums.index_add_(0, torch.from_numpy(items).to(queries.device), queries)
    divisor = torch.from_numpy(np.maximum(counts, 1)).to(queries.device).unsqueeze(1)
    return sums / divisor, counts


def _calibrated(scorer: ModelScorer, histories: Histories) -> tuple[Tensor, Tensor]:
    """Return the map (D, D) and (D,) from mean queries to vectors, by ridge regression."""
    model = scorer.model
    long_enough = np.flatnonzero(histories.lengths > _NEWEST)
    users = np.repeat(long_enough, _NEWEST)
    places = histories.ends[users] - 1 - np.tile(np.arange(_NEWEST), len(long_enough))
    if histories.roles is not None:
        is_target = (histories.roles[places] & TARGET) != 0
        users, places = users[is_target], places[is_target]
    known = np.flatnonzero(histories.items[places] <= model.n_items)
    if len(known) > _CALIBRATION:
        drawn = np.random.default_rng(0).choice(len(known), _CALIBRATION, replace=False)
        known = known[np.sort(drawn)]
    width = model.config.width
    identity = torch.eye(width, dtype=torch.float64)
    nothing = torch.zeros(width, dtype=torch.float64)
    device = model.items.weight.device
    means, counts = _mean_queries(scorer, histories, users[known], places[known], model.n_items)
    items = np.flatnonzero(counts)
    if not len(items):
        return identity.float().to(device), nothing.float().to(device)
    x = means[torch.from_numpy(items).to(device)].cpu().double()
    y = model.catalogue().detach()[torch.from_numpy(items).to(device)].cpu().double()
    weight = torch.from_numpy(counts[items]).double().unsqueeze(1)
    x_mean, y_mean = ((weight * part).sum(0) / weight.sum() for part in (x, y))
    x, y = x - x_mean, y - y_mean
    scale = (weight * x * y).sum() / (weight * x * x).sum().clamp(min=1e-12)
    ridge = _RIDGE * identity
    matrix = torch.linalg.solve(x.T @ (weight * x) + ridge, x.T @ (weight * y) + scale * ridge)
    return matrix.float().to(device), (y_mean - x_mean @ matrix).float().to(device)
