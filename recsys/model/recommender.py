"""The recommender: item embeddings, diffusion and approximator, its loss and its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.errors import ConfigurationError
from recsys.model.approximator import (
    APPROXIMATORS,
    Additive,
    CrossAttention,
    Transformer,
    at_position,
    dropout,
)
from recsys.model.diffusion import OFFSETS, Diffusion, StepEmbedding, reverse
from recsys.model.loss import Seen, cross_entropy, directions, sampled_cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.model.config import ModelConfig


@dataclass(frozen=True)
class InferenceNoise:
    """All noise of one inference run, for one row: common random numbers for every user.

    A user's list then does not depend on who else is scored beside them, batch of one equals batch
    of many, two users with one history get one list, and drawing costs nothing. Positions are
    counted from the right end of a history: 0 is its newest item.

    Attributes:
        start: (D,) x_T.
        noise: (steps, D) of the reverse steps.
        weight: (L, D) lambda of each position.
        known_step: (L,) int64, step at which a position's known next item is noised (causal).
        known_noise: (L, D) its noise (causal).
    """

    start: Tensor
    noise: Tensor
    weight: Tensor
    known_step: Tensor
    known_noise: Tensor

    @classmethod
    def of(cls, config: ModelConfig, steps: int, seed: int, device: torch.device) -> InferenceNoise:
        """Draw on the CPU, so that every device sees the same numbers.

        They are not those that a model of the same seed started from: x_T would be an item.
        """
        key = np.random.SeedSequence((seed, 1)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(key[0]))
        length, width = config.max_length, config.width
        weight = config.delta + config.delta * torch.randn(length, width, generator=generator)
        start = torch.randn(width, generator=generator)
        known_step = torch.randint(1, config.timesteps + 1, (length,), generator=generator)
        known_noise = torch.randn(length, width, generator=generator)
        noise = torch.randn(steps, width, generator=generator)
        drawn = (start, noise, weight, known_step, known_noise)
        return cls(*(draw.to(device) for draw in drawn))


@dataclass(frozen=True)
class Batch:
    """Histories of one training step, several to a row of L cells, each in cells of its own.

    Attributes:
        items: (B, L) int64, 1..V; 0 is an empty cell.
        targets: (B, L) int64, what is to be predicted there: the next item at every position
            (causal), or at a history's newest item alone (prefix); 0 is nothing.
        ahead: (B, L) int64, how many items of the same history follow; 0 in an empty cell.
        seen: (S,) int64 target, ascending, counted through the cells that have one, and (S,) int64
            item of what the user had before it, once each; None where the model does not ask.
    """

    items: Tensor
    targets: Tensor
    ahead: Tensor
    seen: Seen | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        items, targets, ahead = (each.to(device) for each in (self.items, self.targets, self.ahead))
        seen = self.seen and (self.seen[0].to(device), self.seen[1].to(device))
        return Batch(items, targets, ahead, seen)


class Recommender(nn.Module):
    """DiffuRecSys over items 1..V; index 0 is padding and never listed.

    Rows are left-aligned: a history of n items fills positions 0..n-1, padding follows.
    """

    def __init__(
        self, config: ModelConfig, n_items: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if n_items < 1:
            raise ConfigurationError(f"n_items = {n_items} is not allowed; it must be 1 or more")
        self.config = config
        self.n_items = n_items
        self.items = nn.Embedding(n_items + 1, config.width)
        self.norm_items = nn.LayerNorm(config.width)
        if config.positions == "reversed":
            self.position = nn.Parameter(torch.empty(config.max_length, config.width))
        elif config.positions == "relative":
            self.distance = nn.Parameter(torch.empty(config.heads, config.max_length))
        if config.repeat_bias == "learned":
            self.repeat = nn.Parameter(torch.empty(()))
        self.diffusion = Diffusion(config.schedule, config.timesteps)
        if self.denoises:
            self.step = StepEmbedding(config.timesteps, config.width)
            self.approximator: Additive | CrossAttention = APPROXIMATORS[config.approximator](
                config
            )
        self.transformer = Transformer(config)
        self._initialise(generator or torch.Generator().manual_seed(0))

    @property
    def causal(self) -> bool:
        """Whether every position predicts its own next item."""
        return self.config.objective == "causal"

    @property
    def attends_padding(self) -> bool:
        """Whether padding is a part of a history; then batches hold one history a line."""
        return self.config.padding == "attended"

    @property
    def denoises(self) -> bool:
        """Whether there is a noised target at all; else this is a plain sequential Transformer.

        With one pass and full cross-entropy that is SASRec (Kang & McAuley 2018).
        """
        return self.config.approximator != "none"

    @property
    def repeat_bias(self) -> Tensor | None:
        """What the score of an item that the user has had is raised by, a scalar; None is 0.

        A score is a product of D terms; D times a parameter learns at a like speed.
        """
        return self.repeat * self.config.width if self.config.repeat_bias == "learned" else None

    def loss(
        self,
        batch: Batch,
        generator: torch.Generator,
        negatives: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the mean cross-entropy over a batch's targets (Eq. 24-25).

        Args:
            batch: on the model's device.
            generator: of all noise and dropout, on that device.
            negatives: (S,) int64 items that stand for the catalogue, and the log of how often each
                was expected to be drawn; the whole catalogue is scored when None.

        For ``causal``, position i carries the noised embedding of item i + 1, which lies in the
        history of every later position, so nothing leaks. Each position has a step of its own. For
        ``prefix``, every position carries the one target of its history.
        """
        config, items = self.config, batch.items
        held = (batch.targets > 0).flatten().nonzero().squeeze(1)  # (M,)
        targets = batch.targets.flatten()[held]
        ends = batch.ahead + torch.arange(items.shape[1], device=items.device)
        visible = (ends.unsqueeze(2) == ends.unsqueeze(1)).unsqueeze(1)  # (B, 1, L, L)
        if self.attends_padding:
            visible = torch.ones_like(visible)
        elif self.causal:
            visible = visible.tril()
        noised = batch.targets.flatten() if self.causal else targets
        # One lookup for all: its gradient is as large as the catalogue.
        looked_up = torch.cat([items.flatten(), noised]) if self.denoises else items.flatten()
        history, x_0 = self.items(looked_up).tensor_split([items.numel()])
        z = history = self._history(history.view(*items.shape, -1), batch.ahead, generator)
        if self.denoises:
            signal = self._noised(x_0, generator)
            if self.causal:
                signal = signal.view(history.shape)
            else:
                place = (batch.targets > 0).flatten().cumsum(0).view(items.shape) - 1
                signal = F.embedding(place.gather(1, ends).clamp(min=0), signal)
            weight = config.delta + config.delta * torch.randn(
                history.shape, generator=generator, device=items.device
            )
            z = self.approximator(history, weight * signal, history, visible)
        hidden = self.transformer(z, self._bias(visible), generator, only=held)
        queries, catalogue = self.queries(hidden), self.catalogue()
        repeats = self.repeat_bias, batch.seen
        if negatives is not None:
            return sampled_cross_entropy(queries, catalogue, targets, *negatives, *repeats)
        if self.attends_padding:  # it is scored like an item: the row before it is what isn't
            return cross_entropy(queries, F.pad(catalogue, (0, 0, 1, 0)), targets + 1)
        return cross_entropy(queries, catalogue, targets, *repeats)

    def _noised(self, x_0: Tensor, generator: torch.Generator) -> Tensor:
        """Return x_s + d_s (N, D) of targets x_0 (N, D), each at a random step of its own."""
        config = self.config
        step = torch.randint(
            1, config.timesteps + 1, x_0.shape[:1], generator=generator, device=x_0.device
        )
        noise = OFFSETS[config.offset](tuple(x_0.shape), generator, config.offset_scale)
        return self.diffusion.q_sample(x_0, step, noise) + F.embedding(step, self.step())

    def predict(self, items: Tensor, steps: int, draws: InferenceNoise) -> Tensor:
        """Return the predicted target x_0 (B, D) after ``steps`` reverse steps (Alg. 2).

        Args:
            items: (B, L) int64, left-aligned, 1..max_length items in each row.
            steps: reverse steps, 1..T.
            draws: the noise, made for as many steps.
        """
        if not self.denoises:
            return self._alone(items)
        approximate = self._causal(items, draws) if self.causal else self._prefix(items, draws)
        x = draws.start.expand(len(items), -1)
        return reverse(approximate, x, draws.noise, self.diffusion, steps)

    def queries(self, x_0: Tensor) -> Tensor:
        """Return predicted targets (B, D) as they are multiplied with ``catalogue``, float32."""
        if self.config.similarity == "dot":
            return x_0.float()
        return directions(x_0.float()) / self.config.temperature

    def catalogue(self) -> Tensor:
        """Return the items' vectors (V + 1, D), float32, which queries are multiplied with."""
        if self.config.similarity == "dot":
            return self.items.weight
        return directions(self.items.weight)

    def _alone(self, items: Tensor) -> Tensor:
        history = self._history(self.items(items), _offsets_from_right(items), None)
        x_0: Tensor = self.transformer(
            history, self._bias(self._visible(items)), only=_newest(items)
        )
        return x_0.float()

    def _prefix(self, items: Tensor, draws: InferenceNoise) -> Callable[[Tensor, int], Tensor]:
        """Every position carries the target that is being denoised: all run at every step."""
        offsets = _offsets_from_right(items)
        history = self._history(self.items(items), offsets, None)
        weight = draws.weight[offsets]
        visible = self._visible(items)
        bias = self._bias(visible)
        newest = _newest(items)
        steps = self.step()

        def approximate(x: Tensor, step: int) -> Tensor:
            signal = weight * (x + steps[step]).unsqueeze(1)  # (B, L, D)
            z = self.approximator(history, signal, history, visible)
            x_0: Tensor = self.transformer(z, bias, only=newest)
            return x_0.float()

        return approximate

    def _causal(self, items: Tensor, draws: InferenceNoise) -> Callable[[Tensor, int], Tensor]:
        """Only the last position carries the unknown target; all before it run once.

        They carry their known next items, noised by fixed draws, as in training; their keys and
        values serve every reverse step.
        """
        offsets = _offsets_from_right(items)
        history = self._history(self.items(items), offsets, None)
        steps = self.step()
        own = at_position(history, (items > 0).sum(1) - 1)  # (B, 1, D)
        # lambda * (x_s + d_s) of a known next item e is kept * e + added, by position.
        kept = self.diffusion.alpha_bar[draws.known_step].unsqueeze(-1)  # (L, 1)
        added = draws.weight * ((1 - kept).sqrt() * draws.known_noise + steps[draws.known_step])
        signal = torch.addcmul(
            F.embedding(offsets, added),
            F.embedding(offsets, draws.weight * kept.sqrt()),
            self.items(torch.roll(items, -1, dims=1)),
        )
        visible = self._visible(items)
        z = self.approximator(history, signal, history, visible)
        past = self.transformer.context(z, self._bias(visible))

        # The last position attends to those before it and, in a column of its own, to itself.
        held = F.pad(offsets > 0, (0, 1), value=True)[:, None, None, :]  # (B, 1, 1, L + 1)
        last_visible = (items > 0)[:, None, None, :]  # (B, 1, 1, L)
        last_bias = _as_bias(held)
        if self.config.positions == "relative":
            nearness = self.distance[:, F.pad(offsets, (0, 1))]  # (H, B, L + 1)
            last_bias = last_bias + nearness.transpose(0, 1).unsqueeze(2)

        def approximate(x: Tensor, step: int) -> Tensor:
            signal = draws.weight[0] * (x + steps[step]).unsqueeze(1)  # (B, 1, D)
            z = self.approximator(own, signal, history, last_visible)
            x_0: Tensor = self.transformer(z, last_bias, past=past).squeeze(1)
            return x_0.float()

        return approximate

    def _history(
        self, embedded: Tensor, offsets: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Return what the approximator reads (B, L, D) of a history's item embeddings."""
        if generator is not None and (share := self.config.item_dropout):
            drawn = torch.rand(offsets.shape, generator=generator, device=offsets.device)
            embedded = embedded * (drawn >= share).unsqueeze(-1)
        if self.config.positions == "reversed":
            embedded = embedded + F.embedding(offsets, self.position)
        dropped = dropout(embedded, self.config.embedding_dropout, generator)
        normed: Tensor = self.norm_items(dropped)
        return normed

    def _visible(self, items: Tensor) -> Tensor:
        """Return which position sees which, broadcastable to (B, 1, L, L)."""
        if self.attends_padding:
            return torch.ones(1, 1, 1, items.shape[1], dtype=torch.bool, device=items.device)
        if not self.causal:
            return (items > 0)[:, None, None, :]
        length = items.shape[1]
        # Padding follows every item, so the causal mask hides it already.
        return torch.ones(length, length, dtype=torch.bool, device=items.device).tril()[None, None]

    def _bias(self, visible: Tensor) -> Tensor:
        bias = _as_bias(visible)
        if self.config.positions != "relative":
            return bias
        at = torch.arange(visible.shape[-1], device=visible.device)
        far = (at[:, None] - at).abs().clamp(max=self.config.max_length - 1)
        return bias + self.distance[:, far]  # (B | 1, H, L, L)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            module = name.partition(".")[0]
            if module in ("items", "position"):
                parameter.normal_(0, self.config.init_std, generator=generator)
            elif module in ("distance", "repeat") or name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1)
            else:
                nn.init.xavier_normal_(parameter, generator=generator)
        self.items.weight[0] = 0


def _offsets_from_right(items: Tensor) -> Tensor:
    """Return (B, L) int64: 0 at a row's newest item, 1 before it; 0 at padding."""
    lengths = (items > 0).sum(1, keepdim=True)
    at = torch.arange(items.shape[1], device=items.device)
    return (lengths - 1 - at).clamp(min=0)


def _newest(items: Tensor) -> Tensor:
    """Return (B,) int64: each row's newest item, counted through all B * L cells."""
    first = torch.arange(len(items), device=items.device) * items.shape[1]
    return first + (items > 0).sum(1) - 1


def _as_bias(visible: Tensor) -> Tensor:
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, -torch.inf)
