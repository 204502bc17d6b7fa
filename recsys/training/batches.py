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

_PARTS = 4


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

    def gather(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return items (B, L) and targets, (B, L) or for ``prefix`` (B,), int64, 0 is padding."""
        starts, ends = self.starts[rows], self.ends[rows]
        width = int((ends - starts).max())
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

    A part holds rows of like length, so that little is padded; a step has parts of different
    lengths, since steps of one length each cost 4 % of NDCG@10 (see LOG.md).

    Args:
        rows: of one objective.
        batch_size: most targets of a step.
        batch_tokens: most tokens of a step, padding included.
        generator: of the order.

    A row that alone is larger than a part may be is a part of its own.
    """
    for chosen in plan(rows, batch_size, batch_tokens, generator):
        yield [rows.gather(part) for part in chosen]


def plan(
    rows: Rows, batch_size: int, batch_tokens: int, generator: np.random.Generator
) -> list[list[NDArray[np.int64]]]:
    """Return the rows of each part of each step; see ``batches``."""
    most_targets, most_tokens = max(1, batch_size // _PARTS), max(1, batch_tokens // _PARTS)
    shuffled = generator.permutation(len(rows))
    lengths = rows.lengths[shuffled]
    order = np.argsort(-lengths, kind="stable")  # random among rows of one length
    shuffled, lengths = shuffled[order], lengths[order]
    ahead = np.concatenate([[0], np.cumsum(lengths)])
    parts = []
    start = 0
    while start < len(shuffled):
        fits = most_tokens // int(lengths[start])
        if rows.objective == "prefix":
            fits = min(fits, most_targets)
        else:
            limit = ahead[start] + most_targets
            fits = min(fits, int(np.searchsorted(ahead, limit, side="right")) - 1 - start)
        parts.append(shuffled[start : start + max(1, fits)])
        start += max(1, fits)
    mixed = [parts[at] for at in generator.permutation(len(parts))]
    return [mixed[at : at + _PARTS] for at in range(0, len(mixed), _PARTS)]


def _each(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return first[i], first[i] + 1, ... (count[i] numbers) for every i, end to end."""
    ahead = np.cumsum(count) - count
    numbered: NDArray[np.int64] = np.repeat(first - ahead, count) + np.arange(int(count.sum()))
    return numbered
