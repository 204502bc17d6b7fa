"""Data whose right answer is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.histories import Histories
from recsys.model.presets import Preset, resolve
from recsys.model.recommender import Recommender
from recsys.model.runtime import Runtime
from recsys.model.scoring import ModelScorer


@dataclass(frozen=True)
class SuccessorWorld:
    """Every item has one true successor, and every history follows it.

    The successors form one cycle over all items, so no history repeats an item.
    """

    histories: Histories
    n_items: int
    successor: NDArray[np.int32]
    """(V + 1,) the item that follows each item."""

    def next_items(self) -> NDArray[np.int32]:
        """(U,) what every user takes next."""
        return self.successor[self.histories.items[self.histories.ends - 1]]


def successor_world(
    users: int = 150, n_items: int = 30, shortest: int = 4, longest: int = 12, seed: int = 0
) -> SuccessorWorld:
    assert longest < n_items
    generator = np.random.default_rng(seed)
    cycle = generator.permutation(n_items) + 1
    successor = np.zeros(n_items + 1, dtype=np.int32)
    successor[cycle] = np.roll(cycle, -1)
    lengths = generator.integers(shortest, longest + 1, users)
    begin = generator.integers(0, n_items, users)
    packed = [cycle[(first + np.arange(n)) % n_items] for first, n in zip(begin, lengths)]  # noqa: B905 - same length by construction
    return SuccessorWorld(pack(packed), n_items, successor)


def pack(histories: list[NDArray[np.int64]] | list[list[int]]) -> Histories:
    """Pack histories that are written out."""
    items = np.concatenate([np.asarray(history, dtype=np.int32) for history in [[], *histories]])
    offsets = np.cumsum([0, *(len(history) for history in histories)]).astype(np.int64)
    return Histories.from_offsets(items.astype(np.int32), offsets)


def small(preset: str, **overrides: object) -> Preset:
    """A preset as it is, but narrow, for worlds of a few dozen items."""
    return resolve(preset, {"width": 32, "heads": 2, "batch_size": 256, **overrides})


def scores(
    model: Recommender,
    histories: Histories,
    *,
    steps: int | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> torch.Tensor:
    """Scores (B, V + 1) of B users; -inf for padding and for users without history."""
    scored = torch.full((len(histories), model.n_items + 1), -torch.inf)
    for rows, block in ModelScorer(model, steps, seed, runtime or Runtime())(histories):
        scored[torch.from_numpy(rows)] = block.cpu()
    return scored
