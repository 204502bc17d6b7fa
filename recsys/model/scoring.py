"""Scores and top-K lists of users, in a stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.errors import ConfigurationError, GateError
from recsys.model.recommender import Draws
from recsys.model.runtime import Runtime
from recsys.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from recsys.model.recommender import Recommender
    from recsys.sequences import Histories

_TOKENS = 4096
_ROWS = 16
_TELL_SECONDS = 0.3
_CELLS = 32_000_000


@dataclass(frozen=True)
class TopK:
    """The lists of one block of users, in their order.

    Attributes:
        start: the first user's row.
        items: (B, K) int32, best first; 0 where fewer than K items are eligible.
        scores: (B, K) float32; -inf there.
    """

    start: int
    items: NDArray[np.int32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Scorer:
    """A model as a scorer of histories: what evaluation ranks with.

    Attributes:
        model: the recommender.
        steps: reverse steps; the model's own when None.
        seed: of the reverse process.
        runtime: device, threads and precision.
    """

    model: Recommender
    steps: int | None = None
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)

    def __call__(self, histories: Histories) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield (R,) rows of users and their (R, V + 1) scores, in any order of users.

        Users without a history are left out: the model has nothing to say about them. Column 0
        is -inf.

        Raises:
            GateError: the model has or gives a number that is not finite.
        """
        model, config = self.model, self.model.config
        device = self.runtime.torch_device
        steps = config.steps if self.steps is None else self.steps
        model.diffusion.respaced(steps)  # refuses a number of steps that the model lacks
        model.to(device)
        if not bool(torch.isfinite(model.items.weight).all()):
            raise GateError("the model has item embeddings that are not finite; train it again")
        draws = Draws.of(config, steps, self.seed, device)
        for rows, items in _micro_batches(histories, config.max_length, model.n_items):
            with torch.no_grad(), self.runtime.engaged():
                x_0 = model.predict(torch.from_numpy(items).to(device), steps, draws)
                if not bool(torch.isfinite(x_0).all()):
                    raise GateError(
                        f"the model predicts numbers that are not finite, for {len(rows)} users "
                        "of this batch or some of them; train it again"
                    )
                scores = model.logits(x_0)[: len(rows)]
            yield rows, scores


def scores(
    model: Recommender,
    histories: Histories,
    *,
    steps: int | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> Tensor:
    """Return float32 scores (B, V + 1) of B users; -inf for padding and users without history."""
    runtime = runtime or Runtime()
    scored = torch.full((len(histories), model.n_items + 1), -torch.inf)
    for rows, block in Scorer(model, steps, seed, runtime)(histories):
        scored[torch.from_numpy(rows)] = block.cpu()
    return scored


def top_k(
    model: Recommender,
    histories: Histories,
    k: int,
    *,
    steps: int | None = None,
    seed: int = 0,
    block: int = 4096,
    exclude_seen: bool = True,
    eligible: NDArray[np.bool_] | None = None,
    runtime: Runtime | None = None,
    progress: Progress = silent,
) -> Iterator[TopK]:
    """Yield the lists of all users, ``block`` users at a time, in order.

    A user's list does not depend on the block: noise is common to all users, and every micro-batch
    of one padded length has the same number of rows, so that the matrix products that a row goes
    through are the same ones.

    Args:
        model: the recommender.
        histories: items 1..V; a user without any gets an empty list.
        k: items wanted.
        steps: reverse steps; the model's own when None.
        seed: of the reverse process.
        block: users yielded at a time; memory grows with it by K only.
        exclude_seen: whether items of a user's history are left out.
        eligible: (V + 1,) which items may be listed; all when None.
        runtime: device, threads and precision.
        progress: told after each block.

    Raises:
        ConfigurationError: k, block or steps is out of range.
        GateError: the model has or gives a number that is not finite.
    """
    for name, value in (("k", k), ("block", block)):
        if value < 1:
            raise ConfigurationError(f"{name} = {value} is not allowed; it must be 1 or more")
    scorer = Scorer(model, steps, seed, runtime or Runtime())
    barred = None
    if eligible is not None:
        if eligible.shape != (model.n_items + 1,):
            raise ConfigurationError(
                f"eligible has shape {eligible.shape}; it must be ({model.n_items + 1},)"
            )
        barred = torch.from_numpy(~eligible).to(scorer.runtime.torch_device)
    told = 0.0
    for start in range(0, len(histories), block):
        users = histories[start : start + block]
        items = np.zeros((len(users), k), dtype=np.int32)
        kept = np.full((len(users), k), -np.inf, dtype=np.float32)
        for rows, scored in scorer(users):
            if exclude_seen:
                seen_row, seen_item = users[rows].flat()
                scored[torch.from_numpy(seen_row), torch.from_numpy(seen_item).long()] = -torch.inf
            if barred is not None:
                scored.masked_fill_(barred, -torch.inf)
            best, at = best_first(scored, min(k, model.n_items))
            width = best.shape[1]
            kept[rows, :width] = best.cpu().numpy()
            items[rows, :width] = at.masked_fill_(best == -torch.inf, 0).cpu().numpy()
        yield TopK(start, items, kept)
        done = start + len(users)
        if done == len(histories) or time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            progress("scoring", done, len(histories))


def best_first(scored: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best scores (B, k) and their columns, ties by lower column."""
    best, at = scored.topk(k, dim=1)
    # topk takes any of those that tie for the last place: such rows are sorted in full.
    tied = ((scored >= best[:, -1:]).sum(1) > k) & (best[:, -1] > -torch.inf)
    if bool(tied.any()):
        ordered, columns = scored[tied].sort(dim=1, descending=True, stable=True)
        best[tied], at[tied] = ordered[:, :k], columns[:, :k]
    at, order = at.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    return best, at.gather(1, order)


def _micro_batches(
    histories: Histories, max_length: int, n_items: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (R,) rows and (R', L) items, R' >= R, users of like length together.

    L is one of a few widths, chosen by a row's own length, and R' depends on L alone: a full
    micro-batch, short ones filled up by repeating a row. Both are such that no row falls into the
    remainder of a blocked matrix product, whose last bits differ.
    """
    lengths = np.minimum(histories.lengths, max_length)
    widths = _width(lengths)
    for width in np.unique(widths[lengths > 0]).tolist():
        rows = np.flatnonzero((widths == width) & (lengths > 0))
        size = max(_ROWS, min(_TOKENS // width, _CELLS // (n_items + 1)) // _ROWS * _ROWS)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            filled = np.concatenate([part, np.full(size - len(part), part[0])])
            ends = histories.ends[filled]
            begins = np.maximum(histories.starts[filled], ends - max_length)
            yield part, left_aligned(histories.items, begins, ends, width)


def left_aligned(
    items: NDArray[np.int32], starts: NDArray[np.int64], ends: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """Return (B, width) int64: items[start:end] of each row, then padding."""
    at = starts[:, None] + np.arange(width, dtype=np.int64)
    held = at < ends[:, None]
    return np.where(held, items[np.where(held, at, 0)], 0).astype(np.int64)


def _width(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round lengths up to 4, 8, ..., 32, 40, ..., 64, 80, ...: multiples of 4 and of an eighth."""
    step = 2 ** np.maximum(np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64) - 3, 2)
    rounded: NDArray[np.int64] = -(-lengths // step) * step
    return rounded
