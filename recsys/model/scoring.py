"""Scores and top-K lists of users, in a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.errors import ConfigurationError, GateError
from recsys.model.inputs import InferenceNoise
from recsys.model.runtime import Runtime
from recsys.model.top_k import top_k_items
from recsys.progress import Progress, silent, throttled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from recsys.histories import Histories
    from recsys.model.config import ModelConfig
    from recsys.model.recommender import Recommender

_TOKENS, _TOKENS_CUDA = 2048, 262_144  # of a micro-batch; 4096 leave the cache: 1.5 x slower
_ROWS = 16  # a micro-batch has a multiple of so many
_ENCODED_USERS = 16_384  # at a time, so that nearly all micro-batches are full
_CELLS, _CELLS_CUDA = 2_000_000, 256_000_000  # of a block of scores


@dataclass(frozen=True)
class TopK:
    """The lists of one block of users, in their order.

    Attributes:
        start: the first user's row.
        items: (B, K) int32, best first; 0 where fewer than K items are eligible.
        scores: (B, K) float32, natural logarithm of the item's probability among those that the
            list may hold, see `top_k_items`; -inf there.
    """

    start: int
    items: NDArray[np.int32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class ModelScorer:
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

    def encode(self, histories: Histories) -> Tensor:
        """Return each user's query (B, D), float32; zeros for users without a history.

        It is the predicted target as it is compared with `Recommender.catalogue`.

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
        noise = InferenceNoise.of(config, steps, self.seed, device)
        queries = torch.zeros(len(histories), config.width, device=device)
        tokens = _TOKENS if device.type == "cpu" else _TOKENS_CUDA
        with torch.no_grad(), self.runtime.applied():
            for rows, items in _micro_batches(histories, config, tokens):
                x_0 = model.predict(torch.from_numpy(items).to(device), steps, noise)
                queries[torch.from_numpy(rows).to(device)] = model.queries(x_0[: len(rows)])
        if not bool(torch.isfinite(queries).all()):
            raise GateError(
                f"the model predicts numbers that are not finite, for some of {len(histories)} "
                "users; train it again"
            )
        return queries

    def __call__(self, histories: Histories) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield (R,) rows of users and their (R, V + 1) scores.

        Users without a history are left out: the model can't rank for them. Column 0 is -inf.

        Raises:
            GateError: the model has or gives a number that is not finite.
        """
        with_history = np.flatnonzero(histories.lengths)
        for start in range(0, len(with_history), _ENCODED_USERS):
            users = with_history[start : start + _ENCODED_USERS]
            yield from self.score(histories, users, self.encode(histories[users]))

    def score(
        self, histories: Histories, users: NDArray[np.int64], queries: Tensor
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield the same of (R,) users, whose queries (R, D) are known."""
        cells = _CELLS if self.runtime.torch_device.type == "cpu" else _CELLS_CUDA
        size = max(64, cells // (self.model.n_items + 1))
        bias = _seen_bias(self.model)
        catalogue = self.model.catalogue().detach().to(self.runtime.torch_device)
        for first in range(0, len(users), size):
            block = slice(first, first + size)
            with self.runtime.applied():
                with torch.autocast(catalogue.device.type, enabled=False):
                    scores = queries[block] @ catalogue.T
                scores[:, 0] = -torch.inf
                if bias:
                    scores[_seen(histories[users[block]], scores.device)] += bias
            yield users[block], scores


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
    had: Histories | None = None,
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
        k: length of a list.
        steps: reverse steps; the model's own when None.
        seed: of the reverse process.
        block: users yielded at a time; memory holds their x_0, their items and their lists.
        exclude_seen: whether items that a user has had are left out.
        eligible: (V + 1,) which items may be listed; all when None.
        had: of the same users, what they have had; their histories when None.
        runtime: device, threads and precision.
        progress: called after each block.

    Raises:
        ConfigurationError: k, block or steps is out of range.
        GateError: the model has or gives a number that is not finite.
    """
    for name, value in (("k", k), ("block", block)):
        if value < 1:
            raise ConfigurationError(f"{name} = {value} is not allowed; it must be 1 or more")
    scorer = ModelScorer(model, steps, seed, runtime or Runtime())
    device, tell = scorer.runtime.torch_device, throttled(progress)
    ineligible = _ineligible(model, eligible, device)
    repeat_bias, longest = _seen_bias(model), min(k, model.n_items)
    catalogue = model.catalogue().detach().to(device)
    # Users are encoded by many, and listed by block.
    encoded = -(-_ENCODED_USERS // block) * block
    for start in range(0, len(histories), block):
        if start % encoded == 0:
            queries = scorer.encode(histories[start : start + encoded])
        users = histories[start : start + block]
        with_history = np.flatnonzero(users.lengths)
        ranked = users[with_history]
        had_by = ranked if had is None else had[start : start + block][with_history]
        seen, bias = _biases(ranked, had_by if exclude_seen else None, repeat_bias, device)
        rows = torch.from_numpy(start % encoded + with_history).to(device)
        with scorer.runtime.applied():
            best, items = top_k_items(queries[rows], catalogue, longest, seen, ineligible, bias)
        yield _lists(start, with_history, best, items, (len(users), k))
        tell("scoring", start + len(users), len(histories))


def _lists(
    start: int, users: NDArray[np.int64], best: Tensor, items: Tensor, shape: tuple[int, int]
) -> TopK:
    """Return the lists of some users of a block, and empty ones for the others."""
    items.masked_fill_(best == -torch.inf, 0)
    length = best.shape[1]
    block = TopK(start, np.zeros(shape, np.int32), np.full(shape, -np.inf, np.float32))
    block.items[users, :length] = items.cpu().numpy()
    block.scores[users, :length] = best.cpu().numpy()
    return block


def _ineligible(
    model: Recommender, eligible: NDArray[np.bool_] | None, device: torch.device
) -> Tensor | None:
    """Return (V + 1,) bool, the items that no list may hold; None where all are eligible."""
    if eligible is None:
        return None
    if eligible.shape != (model.n_items + 1,):
        raise ConfigurationError(
            f"eligible has shape {eligible.shape}; it must be ({model.n_items + 1},)"
        )
    return torch.from_numpy(~eligible).to(device)


def _seen(histories: Histories, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (S,) row and (S,) item of every interaction, int64."""
    row, item = histories.interactions()
    return torch.from_numpy(row).to(device), torch.from_numpy(item).long().to(device)


def _biases(
    histories: Histories, excluded: Histories | None, repeat_bias: float, device: torch.device
) -> tuple[tuple[Tensor, Tensor] | None, float | Tensor]:
    """Return the (row, item) pairs whose scores are changed, rows ascending, and by how much.

    What is excluded gets -inf, the other items of a history the model's bias for repeats.
    """
    if excluded is None:
        return (_seen(histories, device) if repeat_bias else None), repeat_bias
    if excluded is histories or not repeat_bias:
        return _seen(excluded, device), -math.inf
    excluded_rows, excluded_items = excluded.interactions()
    rows, items = histories.interactions()
    rows, items = np.concatenate([excluded_rows, rows]), np.concatenate([excluded_items, items])
    bias = np.full(len(rows), -np.inf, dtype=np.float32)
    bias[len(excluded_rows) :] = repeat_bias
    # Each pair once, the excluded one where there are both.
    _, firsts = np.unique(rows * (int(items.max(initial=0)) + 1) + items, return_index=True)
    pairs = torch.from_numpy(rows[firsts]), torch.from_numpy(items[firsts]).long()
    return (pairs[0].to(device), pairs[1].to(device)), torch.from_numpy(bias[firsts]).to(device)


def _seen_bias(model: Recommender) -> float:
    bias = model.repeat_bias
    return 0.0 if bias is None else bias.item()


def _micro_batches(
    histories: Histories, config: ModelConfig, tokens: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (R,) rows and (R', L) items, R' >= R, users of like length together.

    L is one of a few widths, chosen by a row's own length, and R' depends on L alone: a full
    micro-batch, short ones filled up by repeating a row. Both are such that no row falls into the
    remainder of a blocked matrix product, whose last bits differ.
    """
    max_length = config.max_length
    lengths = np.minimum(histories.lengths, max_length)
    widths = _width(lengths)
    if config.padding == "attended":
        widths = np.full_like(lengths, max_length)
    for width in np.unique(widths[lengths > 0]).tolist():
        rows = np.flatnonzero((widths == width) & (lengths > 0))
        size = max(_ROWS, tokens // width // _ROWS * _ROWS)
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
    place = starts[:, None] + np.arange(width, dtype=np.int64)
    is_item = place < ends[:, None]
    return np.where(is_item, items[np.where(is_item, place, 0)], 0).astype(np.int64)


def _width(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Round lengths up to 4, 8, ..., 32, 40, ..., 64, 80, ...: multiples of 4 and of an eighth."""
    step = 2 ** np.maximum(np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64) - 3, 2)
    rounded: NDArray[np.int64] = -(-lengths // step) * step
    return rounded
