"""Training rows out of packed histories, gathered in batches of like length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.model.scoring import left_aligned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from recsys.model.config import Objective
    from recsys.sequences import Histories

_LOTS = 4


@dataclass(frozen=True)
class Rows:
    """Training rows as spans of packed histories: row r reads items[start:end].

    Its target at position i is the item after it, items[start + i + 1]; a ``prefix`` row has one
    target, the item at ``end``.

    Attributes:
        items: (N,) int32, the packed histories' own array.
        starts: (R,) int64.
        ends: (R,) int64, exclusive; at least one more than the start.
        objective: which positions have a target.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    objective: Objective

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,) inputs of each row."""
        return self.ends - self.starts

    @property
    def targets(self) -> int:
        """Number of targets in all rows."""
        return len(self) if self.objective == "prefix" else int(self.lengths.sum())

    def longest(self, rows: NDArray[np.int64]) -> int:
        """Return the inputs of the longest of some rows."""
        return int((self.ends[rows] - self.starts[rows]).max())

    def gather(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return items (B, L) and targets, (B, L) or for ``prefix`` (B,), int64, 0 is padding."""
        starts, ends, width = self.starts[rows], self.ends[rows], self.longest(rows)
        items = torch.from_numpy(left_aligned(self.items, starts, ends, width))
        if self.objective == "prefix":
            return items, torch.from_numpy(self.items[ends].astype(np.int64))
        return items, torch.from_numpy(left_aligned(self.items, starts + 1, ends + 1, width))


def training_rows(histories: Histories, objective: Objective, max_length: int) -> Rows:
    """Return rows that hold every target of every history exactly once.

    A history of n items has n - 1 targets: its items but the first. ``prefix`` makes each a row
    with up to ``max_length`` items before it; ``causal`` cuts a history into windows of that many
    inputs, from its right end, so that only the oldest window is short.
    """
    inputs = np.maximum(histories.lengths - 1, 0)
    if objective == "prefix":
        ends = _each(histories.starts + 1, inputs)
        starts = np.maximum(np.repeat(histories.starts, inputs), ends - max_length)
        return Rows(histories.items, starts, ends, objective)
    windows = -(-inputs // max_length)
    back = _each(np.zeros_like(windows), windows)  # 0 is a history's newest window
    ends = np.repeat(histories.starts + inputs, windows) - back * max_length
    starts = np.maximum(np.repeat(histories.starts, windows), ends - max_length)
    return Rows(histories.items, starts, ends, objective)


def batches(
    rows: Rows, batch_size: int, batch_tokens: int, generator: np.random.Generator
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield the parts of each gradient step's batch, in random order, each row once.

    A part holds rows of like length, so that little is padded; a step has rows of different
    lengths, since steps of one length each cost 4 % of NDCG@10 (see LOG.md).

    Args:
        rows: of one objective.
        batch_size: targets of a step.
        batch_tokens: most tokens of a step; it has fewer targets where rows are long.
        generator: of the order.

    Whole rows can't meet these numbers exactly: a step may exceed them by a row or so for each of
    the four lots that it is drawn in.
    """
    for chosen in plan(rows, batch_size, batch_tokens, generator):
        yield [rows.gather(part) for part in chosen]


def plan(
    rows: Rows, batch_size: int, batch_tokens: int, generator: np.random.Generator
) -> list[list[NDArray[np.int64]]]:
    """Return the rows of each part of each step; see ``batches``.

    Rows in order of length are cut into lots, a quarter of a step each; a step is four lots at
    random, those of like length joined to a part.
    """
    shuffled = generator.permutation(len(rows))
    lengths = rows.lengths[shuffled]
    order = np.argsort(-lengths, kind="stable")  # random among rows of one length
    shuffled, lengths = shuffled[order], lengths[order]
    targets = np.ones_like(lengths) if rows.objective == "prefix" else lengths
    share = np.maximum(targets / batch_size, lengths / batch_tokens)  # of a step
    lot = ((np.cumsum(share) - share) * _LOTS).astype(np.int64)
    lots = np.split(shuffled, np.flatnonzero(np.diff(lot)) + 1)
    mixed = [lots[at] for at in generator.permutation(len(lots))]
    return [_joined(mixed[at : at + _LOTS], rows) for at in range(0, len(mixed), _LOTS)]


def _joined(lots: list[NDArray[np.int64]], rows: Rows) -> list[NDArray[np.int64]]:
    """Join lots where the shorter rows are padded by a quarter at most."""
    parts: list[list[NDArray[np.int64]]] = []
    width = 0
    for length, lot in sorted(
        ((rows.longest(lot), lot) for lot in lots), key=lambda each: -each[0]
    ):
        if not parts or length < 0.8 * width:
            parts.append([])
            width = length
        parts[-1].append(lot)
    return [np.concatenate(part) for part in parts]


def _each(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return first[i], first[i] + 1, ... (count[i] numbers) for every i, end to end."""
    ahead = np.cumsum(count) - count
    numbered: NDArray[np.int64] = np.repeat(first - ahead, count) + np.arange(int(count.sum()))
    return numbered
