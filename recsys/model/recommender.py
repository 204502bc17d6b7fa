"""The recommender: item embeddings, diffusion and approximator, its loss and its predictions.

Letters of shapes, here and in all of `recsys.model`:

    B  rows of a batch: users, or lines of packed histories
    L  positions of a row, at most max_length at inference
    J  positions that are asked for, of the L that are attended to
    D  width of an embedding
    H  attention heads, and F = D / H features of each
    V  items of the catalogue; index 0 is padding, so tables have V + 1 rows
    K  items of a list
    S  pairs of a row and an item that its user had before; or sampled negatives
    T  diffusion steps; step 0 is the clean target
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from recsys.model.inputs import newest_cells, offsets_from_right
from recsys.model.loss import cross_entropy, directions, sampled_cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.model.config import ModelConfig
    from recsys.model.inputs import Batch, InferenceNoise


class Recommender(nn.Module):
    """DiffuRecSys (arXiv 2410.19429) over items 1..V; index 0 is padding and never listed.

    Rows are left-aligned: a history of n items fills positions 0..n-1, padding follows. A history
    and a noised embedding of its next item go into a Transformer, which predicts the clean
    embedding x_0; items are ranked by their similarity to it. What is special:

    - The target is noised at a random step (Eq. 20), with offset noise if asked for (Eq. 17), and
      meets the history by addition (Eq. 15) or by linear cross-attention (Eq. 16), weighted by
      lambda ~ N(delta, delta), drawn for every element.
    - ``causal``, unlike the papers: one pass trains all positions of a history. Each carries its
      own next item, noised at a step of its own; a causal mask keeps it from all positions before.
    - Inference is the reverse process (Alg. 2, Eq. 23) in any number of steps from 1 to T. The
      older positions of a causal history run once for all steps, through cached keys and values.
    - Noise at inference is common to all users (`InferenceNoise`), so that lists depend on the
      history and the seed alone.
    - The loss is full cross-entropy (Eq. 24-25) without a matrix of all scores, or over sampled
      negatives. Ranking is by inner product (Eq. 26), or by cosine over a temperature.
    - A learned ``repeat`` bias is added to items that the user has had.
    - Where the published code is ill-posed, this is not: blocks are chained, padded keys are
      hidden, queries come from the target, keys are normalised over positions, and padding is
      never scored. The presets say what `released` brings back.
    - Without an approximator it is SASRec (Kang & McAuley 2018).

    Parameters start as:

        items, position                N(0, init_std^2); row 0 of items, the padding, is 0
        distance, repeat               0
        weights of linear layers       Xavier normal (Glorot & Bengio 2010)
        biases of linear layers        0
        normalisation                  weight 1, bias 0
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
        self._initialise_parameters(generator or torch.Generator().manual_seed(0))

    @property
    def causal(self) -> bool:
        """Whether every position predicts its own next item."""
        return self.config.objective == "causal"

    @property
    def attends_padding(self) -> bool:
        """Whether padding is a part of a history; then batches hold one history per line."""
        return self.config.padding == "attended"

    @property
    def denoises(self) -> bool:
        """Whether there is a noised target at all; else this is a plain sequential Transformer."""
        return self.config.approximator != "none"

    @property
    def repeat_bias(self) -> Tensor | None:
        """What is added to the score of an item that the user has had, a scalar; None is 0.

        A score is a product of D terms; D times a parameter learns at a similar speed.
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
        target_cells = batch.target_cells  # (M,)
        targets = batch.targets.flatten()[target_cells]
        # Cells of one history share the place of its last one.
        ends = batch.steps_to_end + torch.arange(items.shape[1], device=items.device)
        visible = (ends.unsqueeze(2) == ends.unsqueeze(1)).unsqueeze(1)  # (B, 1, L, L)
        if self.attends_padding:
            visible = torch.ones_like(visible)
        elif self.causal:
            visible = visible.tril()
        noised = batch.targets.flatten() if self.causal else targets
        # One lookup for all: its gradient is as large as the catalogue.
        indices = torch.cat([items.flatten(), noised]) if self.denoises else items.flatten()
        embedded, x_0 = self.items(indices).tensor_split([items.numel()])
        history = self._history(embedded.view(*items.shape, -1), batch.steps_to_end, generator)
        z = history  # (B, L, D)
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
        hidden = self.transformer(z, self._bias(visible), generator, only=target_cells)  # (M, D)
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

    def predict(
        self,
        items: Tensor,
        steps: int,
        noise: InferenceNoise,
        callback: Callable[[int, Tensor, Tensor], None] = lambda *_: None,
    ) -> Tensor:
        """Return the predicted target x_0 (B, D) after ``steps`` reverse steps (Alg. 2).

        Args:
            items: (B, L) int64, left-aligned, 1..max_length items in each row.
            steps: reverse steps, 1..T.
            noise: drawn for as many steps.
            callback: called at each reverse step, see `reverse`; never without diffusion.
        """
        if not self.denoises:
            return self._without_diffusion(items)
        x = noise.start.expand(len(items), -1)
        approximate = self.approximation(items, noise)
        return reverse(approximate, x, noise.reverse, self.diffusion, steps, callback)

    def approximation(
        self, items: Tensor, noise: InferenceNoise
    ) -> Callable[[Tensor, int], Tensor]:
        """Read histories (B, L) once; return what maps x_s (B, D) and its step to x_0 (B, D)."""
        if self.causal:
            return self._causal_approximation(items, noise)
        return self._prefix_approximation(items, noise)

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

    def _without_diffusion(self, items: Tensor) -> Tensor:
        history = self._history(self.items(items), offsets_from_right(items), None)
        bias = self._bias(self._visible(items))
        x_0: Tensor = self.transformer(history, bias, only=newest_cells(items))
        return x_0.float()

    def _prefix_approximation(
        self, items: Tensor, noise: InferenceNoise
    ) -> Callable[[Tensor, int], Tensor]:
        """Every position carries the target that is being denoised: all run at every step."""
        offsets = offsets_from_right(items)
        history = self._history(self.items(items), offsets, None)
        weight = noise.weight[offsets]  # (B, L, D)
        visible = self._visible(items)
        bias = self._bias(visible)
        newest = newest_cells(items)
        steps = self.step()

        def approximate(x: Tensor, step: int) -> Tensor:
            signal = weight * (x + steps[step]).unsqueeze(1)  # (B, L, D)
            z = self.approximator(history, signal, history, visible)
            x_0: Tensor = self.transformer(z, bias, only=newest)
            return x_0.float()

        return approximate

    def _causal_approximation(
        self, items: Tensor, noise: InferenceNoise
    ) -> Callable[[Tensor, int], Tensor]:
        """Only the last position carries the unknown target; all before it run once.

        They carry their next items, which the history holds, noised by fixed draws, as in
        training; their keys and values serve every reverse step.
        """
        offsets = offsets_from_right(items)
        history = self._history(self.items(items), offsets, None)
        steps = self.step()
        newest = at_position(history, (items > 0).sum(1) - 1)  # (B, 1, D)
        # lambda * (x_s + d_s) of a next item e is scale * e + shift, by position.
        alpha_bar = self.diffusion.alpha_bar[noise.context_step].unsqueeze(-1)  # (L, 1)
        scale = noise.weight * alpha_bar.sqrt()
        noise_term = (1 - alpha_bar).sqrt() * noise.context_noise
        shift = noise.weight * (noise_term + steps[noise.context_step])  # (L, D)
        signal = torch.addcmul(
            F.embedding(offsets, shift),
            F.embedding(offsets, scale),
            self.items(torch.roll(items, -1, dims=1)),
        )
        visible = self._visible(items)
        z = self.approximator(history, signal, history, visible)
        past = self.transformer.context(z, self._bias(visible))

        # The last position attends to those before it and, in a column of its own, to itself.
        attended = F.pad(offsets > 0, (0, 1), value=True)[:, None, None, :]  # (B, 1, 1, L + 1)
        last_visible = (items > 0)[:, None, None, :]  # (B, 1, 1, L)
        last_bias = _as_bias(attended)
        if self.config.positions == "relative":
            nearness = self.distance[:, F.pad(offsets, (0, 1))]  # (H, B, L + 1)
            last_bias = last_bias + nearness.transpose(0, 1).unsqueeze(2)

        def approximate(x: Tensor, step: int) -> Tensor:
            signal = noise.weight[0] * (x + steps[step]).unsqueeze(1)  # (B, 1, D)
            z = self.approximator(newest, signal, history, last_visible)
            x_0: Tensor = self.transformer(z, last_bias, past=past).squeeze(1)
            return x_0.float()

        return approximate

    def _history(
        self, embedded: Tensor, offsets: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Return what the approximator reads (B, L, D) of a history's item embeddings."""
        if generator is not None and (rate := self.config.item_dropout):
            uniform = torch.rand(offsets.shape, generator=generator, device=offsets.device)
            embedded = embedded * (uniform >= rate).unsqueeze(-1)
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
        position = torch.arange(visible.shape[-1], device=visible.device)
        apart = (position[:, None] - position).abs().clamp(max=self.config.max_length - 1)
        return bias + self.distance[:, apart]  # (B | 1, H, L, L)

    @torch.no_grad()
    def _initialise_parameters(self, generator: torch.Generator) -> None:
        """Draw every parameter by the table of the class, in the order of registration."""
        if self.config.positions == "reversed":
            self.position.normal_(0, self.config.init_std, generator=generator)
        elif self.config.positions == "relative":
            self.distance.zero_()
        if self.config.repeat_bias == "learned":
            self.repeat.zero_()
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0, self.config.init_std, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight, generator=generator)
                module.bias.zero_()
            elif isinstance(module, nn.LayerNorm):
                module.weight.fill_(1)
                module.bias.zero_()
        self.items.weight[0] = 0


def _as_bias(visible: Tensor) -> Tensor:
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, -torch.inf)
