"""Training rows out of packed histories, in batches without padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.histories import INPUT, TARGET
from recsys.model.inputs import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recsys.histories import Histories
    from recsys.model.config import Objective

_MOST_SEEN = 1000  # interactions before a row that its targets are told of: bounds memory
_NARROWEST = 48  # cells of a line, so that short histories leave few of them empty


@dataclass(frozen=True)
class Rows:
    """Training rows as spans of packed histories: row r reads items[start:end].

    Its target at position i is the item after it, items[start + i + 1]; a ``prefix`` row has one
    target, the item at ``end``. Before ``start`` the user's history goes back to ``origin``.

    Attributes:
        items: (N,) int32, the packed histories' own array.
        starts: (R,) int64.
        ends: (R,) int64, exclusive; at least one more than the start.
        origins: (R,) int64, at most the start.
        objective: which positions have a target.
        is_target: (N,) which items are targets; all when None.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    origins: NDArray[np.int64]
    objective: Objective
    is_target: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,) inputs of each row."""
        return self.ends - self.starts

    @property
    def target_counts(self) -> NDArray[np.int64]:
        """(R,) targets of each row."""
        if self.objective == "prefix":
            return np.ones_like(self.starts)
        if self.is_target is None:
            return self.lengths
        before = np.concatenate([[0], np.cumsum(self.is_target)])
        counts: NDArray[np.int64] = before[self.ends + 1] - before[self.starts + 1]
        return counts

    @property
    def targets(self) -> int:
        """Number of targets in all rows."""
        return int(self.target_counts.sum())

    def with_targets(self) -> Rows:
        """Return the rows that have a target."""
        if self.is_target is None:
            return self
        if self.objective == "prefix":
            has_target = self.is_target[self.ends]
        else:
            has_target = self.target_counts > 0
        starts, ends, origins = (
            part[has_target] for part in (self.starts, self.ends, self.origins)
        )
        return replace(self, starts=starts, ends=ends, origins=origins)


def training_rows(histories: Histories, objective: Objective, max_length: int) -> Rows:
    """Return rows that hold every target of every history exactly once.

    A history of n items has n - 1 targets: its items but the first, or those of them that have the
    role of one; items that the model does not read are left out. ``prefix`` makes each a row
    with up to ``max_length`` items before it; ``causal`` cuts a history into windows of that many
    inputs, from its right end, so that only the oldest window is short.
    """
    histories = histories.of_role(INPUT)
    is_target = None if histories.roles is None else (histories.roles & TARGET) != 0
    inputs = np.maximum(histories.lengths - 1, 0)
    if objective == "prefix":
        ends = _ranges(histories.starts + 1, inputs)
        origins = np.repeat(histories.starts, inputs)
        starts = np.maximum(origins, ends - max_length)
        return Rows(histories.items, starts, ends, origins, objective, is_target).with_targets()
    windows = -(-inputs // max_length)
    origins = np.repeat(histories.starts, windows)
    back = _ranges(np.zeros_like(windows), windows)  # 0 is a history's newest window
    ends = np.repeat(histories.starts + inputs, windows) - back * max_length
    starts = np.maximum(origins, ends - max_length)
    return Rows(histories.items, starts, ends, origins, objective, is_target).with_targets()


def batches(
    rows: Rows,
    batch_size: int,
    batch_tokens: int,
    generator: np.random.Generator,
    *,
    with_seen: bool = False,
    padded_to: int | None = None,
    skip: int = 0,
) -> Iterator[Batch]:
    """Yield each gradient step's batch: rows in random order, each once.

    Rows of all lengths are packed together, several to a line of cells, so that hardly any cell is
    empty. Batches of one length each would need no packing, and cost 4 % of NDCG@10 (see
    docs/experiment-log.md).

    Args:
        rows: of one objective.
        batch_size: targets of a step; its last row may exceed it.
        batch_tokens: most tokens of a step, likewise; it has fewer targets where rows are long.
            With ``padded_to``, padding counts.
        generator: of the order.
        with_seen: whether batches say what users had before each target.
        padded_to: cells of a line that holds one row alone; rows share lines when None.
        skip: first steps to leave out, of an epoch that is resumed.
    """
    width = padded_to or max(_NARROWEST, -(-int(rows.lengths.max()) // 8) * 8)
    one_history_per_line = padded_to is not None
    for step in split_into_steps(rows, batch_size, batch_tokens, generator, padded_to)[skip:]:
        yield make_batch(
            rows, step, width, with_seen=with_seen, one_history_per_line=one_history_per_line
        )


def split_into_steps(
    rows: Rows,
    batch_size: int,
    batch_tokens: int,
    generator: np.random.Generator,
    padded_to: int | None = None,
) -> list[NDArray[np.int64]]:
    """Return the rows of each step; see ``batches``."""
    shuffled = generator.permutation(len(rows))
    lengths = rows.lengths[shuffled]
    targets = rows.target_counts[shuffled]
    # What each row takes of a step's limits.
    share = np.maximum(targets / batch_size, (padded_to or lengths) / batch_tokens)
    step = (np.cumsum(share) - share).astype(np.int64)
    return np.split(shuffled, np.flatnonzero(np.diff(step)) + 1)


def make_batch(
    rows: Rows,
    step: NDArray[np.int64],
    width: int,
    *,
    with_seen: bool = False,
    one_history_per_line: bool = False,
) -> Batch:
    """Return the rows of one step as a batch with lines of ``width`` cells; see ``batches``."""
    starts, ends = rows.starts[step], rows.ends[step]
    lengths = ends - starts
    if one_history_per_line:
        first, lines = np.arange(len(step)) * width, len(step)
    else:
        first, lines = _first_fit(lengths, width)
    items, targets, steps_to_end = (np.zeros(lines * width, dtype=np.int64) for _ in range(3))
    cells, sources = _ranges(first, lengths), _ranges(starts, lengths)
    items[cells] = rows.items[sources]
    steps_to_end[cells] = np.repeat(ends, lengths) - 1 - sources
    if rows.objective == "prefix":
        target_cells, after, row = first + lengths - 1, ends, np.arange(len(step))
    else:
        target_cells, after, row = cells, sources + 1, np.repeat(np.arange(len(step)), lengths)
        if rows.is_target is not None:
            is_target = rows.is_target[after]
            target_cells, after, row = target_cells[is_target], after[is_target], row[is_target]
    targets[target_cells] = rows.items[after]
    seen = None
    if with_seen:
        order = np.argsort(target_cells)
        target, item = _seen(rows, step, row[order], after[order])
        seen = torch.from_numpy(target), torch.from_numpy(item).long()
    in_lines = [
        torch.from_numpy(cell).view(lines, width) for cell in (items, targets, steps_to_end)
    ]
    cells_with_target = torch.from_numpy(np.flatnonzero(targets))
    return Batch(in_lines[0], in_lines[1], in_lines[2], cells_with_target, seen)


def _seen(
    rows: Rows, step: NDArray[np.int64], row: NDArray[np.int64], after: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return (S,) target and (S,) item, each different item before each target once.

    Args:
        rows: of all steps.
        step: (C,) the rows of this one.
        row: (M,) each target's place in ``step``.
        after: (M,) each target's place in the packed items.
    """
    origins = np.maximum(rows.origins[step], rows.starts[step] - _MOST_SEEN)
    lengths = rows.ends[step] - origins
    items = rows.items[_ranges(origins, lengths)]
    owner = np.repeat(np.arange(len(step)), lengths)
    _, firsts = np.unique(owner * (int(items.max()) + 1) + items, return_index=True)
    firsts.sort()
    begins = np.cumsum(lengths) - lengths
    low, high = (np.searchsorted(firsts, begins[row] + back) for back in (0, after - origins[row]))
    return np.repeat(np.arange(len(row)), high - low), items[firsts[_ranges(low, high - low)]]


def _first_fit(lengths: NDArray[np.int64], width: int) -> tuple[NDArray[np.int64], int]:
    """Return each row's first cell, and how many lines they take: first fit, longest first."""
    first = np.empty_like(lengths)
    free = np.empty(0, dtype=np.int64)  # cells of each line
    order = np.argsort(-lengths, kind="stable")
    for same_length in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        length = int(lengths[same_length[0]])
        room = free // length
        lacking = len(same_length) - int(room.sum())
        if lacking > 0:
            new_lines = -(-lacking // (width // length))
            free = np.concatenate([free, np.full(new_lines, width)])
            room = free // length
        left = len(same_length) - np.cumsum(room) + room  # rows that earlier lines did not take
        placed = np.minimum(room, np.maximum(left, 0))  # rows in each line
        line = np.repeat(np.arange(len(free)), placed)
        nth = _ranges(np.zeros_like(placed), placed)
        first[same_length] = line * width + width - free[line] + nth * length
        free = free - placed * length
    return first, len(free)


def _ranges(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return first[i], first[i] + 1, ... (count[i] numbers) for every i, end to end."""
    before = np.cumsum(count) - count
    numbers: NDArray[np.int64] = np.repeat(first - before, count) + np.arange(int(count.sum()))
    return numbers
