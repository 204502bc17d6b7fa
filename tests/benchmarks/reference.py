"""DiffuRec as the paper describes it and its authors compute it: a yardstick, not a product.

Written from arXiv 2304.00686 and from what the published code is known to compute, without
anything that makes ours fast: every prefix is a row of its own, padded to the full length L;
float32; torch's dropout in every place where the authors drop (embeddings, attention weights, the
inner and the outer side of the feed-forward layer, the end of each block and of the last one);
normalisation and tanh-GELU spelt out in elementary operations; a full (B, V) score matrix; a
DataLoader that pads in Python; at inference T full reverse passes over all L positions. It is
better-posed than theirs where that costs nothing: padded keys are hidden, padding is never scored.
Parameters are named as in `recsys.model`, so that weights pass both ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from recsys.histories import Histories
from recsys.model.config import ModelConfig
from recsys.model.presets import PRESETS, Preset
from recsys.model.recommender import Recommender
from recsys.progress import Progress, silent

Draw = Callable[[tuple[int, ...]], Tensor]  # standard normal numbers of a shape


class Norm(nn.LayerNorm):
    """Layer normalisation in elementary operations."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.pow(2).mean(-1, keepdim=True)
        return self.weight * (centred / torch.sqrt(variance + self.eps)) + self.bias


def tanh_gelu(x: Tensor) -> Tensor:
    """The tanh form of GELU (Hendrycks & Gimpel 2016) in elementary operations."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


class Block(nn.Module):
    """Pre-norm Transformer block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm_attention = Norm(config.width)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_feed = Norm(config.width)
        self.up_proj = nn.Linear(config.width, 4 * config.width)
        self.down_proj = nn.Linear(4 * config.width, config.width)
        self.activation = tanh_gelu if config.activation == "gelu" else F.relu
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """Return (B, L, D) from x (B, L, D); keys are hidden where padding (B, L)."""
        parts = self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        query, key, value = (p.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for p in parts)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, H, L, L)
        attention = scores.masked_fill(padding[:, None, None, :], -torch.inf).softmax(-1)
        met = (self.dropout(attention) @ value).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(met))
        fed = self.down_proj(self.dropout(self.activation(self.up_proj(self.norm_feed(x)))))
        return self.dropout(x + self.dropout(fed))


class Transformer(nn.Module):
    """Chained blocks and a closing normalisation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = Norm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, padding)
        return self.norm(self.dropout(x))


class StepEmbedding(nn.Module):
    """d_s (B, D) of steps (B,): sinusoidal(s * 1000 / T), Linear, SiLU, Linear."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.timesteps, self.rates = config.timesteps, config.width // 2
        self.up_proj = nn.Linear(config.width, 4 * config.width)
        self.down_proj = nn.Linear(4 * config.width, config.width)

    def forward(self, step: Tensor) -> Tensor:
        at = torch.arange(self.rates, device=step.device) / self.rates
        angles = (step * 1000 / self.timesteps).unsqueeze(1) * torch.exp(-math.log(10_000) * at)
        return self.down_proj(F.silu(self.up_proj(torch.cat([angles.cos(), angles.sin()], dim=1))))


class Reference(nn.Module):
    """DiffuRec over items 1..V. Rows are padded on the left: the newest item stands last."""

    def __init__(self, config: ModelConfig, n_items: int, seed: int = 0) -> None:
        super().__init__()
        self.config, self.n_items = config, n_items
        self.items = nn.Embedding(n_items + 1, config.width)
        self.norm_items = Norm(config.width)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.step = StepEmbedding(config)
        self.transformer = Transformer(config)
        scale = 1000 / config.timesteps  # the truncated linear schedule
        self.beta = torch.linspace(1e-4 * scale + 0.01, 0.02 * scale + 0.01, config.timesteps)
        self.alpha_bar = torch.cat([torch.ones(1), torch.cumprod(1 - self.beta, 0)])  # 0: clean
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.items.weight, 0, config.init_std, generator=generator)

    @classmethod
    def of(cls, model: Recommender) -> Reference:
        """Return the reference with a recommender's weights."""
        reference = cls(model.config, model.n_items)
        reference.load_state_dict(model.state_dict())
        return reference

    def as_recommender(self) -> Recommender:
        """Return our recommender with these weights."""
        model = Recommender(self.config, self.n_items)
        model.load_state_dict(self.state_dict())
        return model

    def approximate(self, items: Tensor, x_s: Tensor, step: Tensor, draw: Draw) -> Tensor:
        """Return the predicted x_0 (B, D) from items (B, L), x_s (B, D) and steps (B,): Eq. 15."""
        history = self.norm_items(self.embedding_dropout(self.items(items)))  # (B, L, D)
        weight = self.config.delta + self.config.delta * draw(tuple(history.shape))
        z = history + weight * (x_s + self.step(step)).unsqueeze(1)
        return self.transformer(z, items == 0)[:, -1]

    def loss(self, items: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy (Eq. 24-25) of items (B, L) and targets (B,)."""
        draw = _normal(items.device)
        step = torch.randint(1, self.config.timesteps + 1, targets.shape, device=items.device)
        kept = self.alpha_bar.to(items.device)[step].unsqueeze(1)
        x_0 = self.items(targets)
        x_s = kept.sqrt() * x_0 + (1 - kept).sqrt() * draw(tuple(x_0.shape))  # Eq. 20
        predicted = self.approximate(items, x_s, step, draw)
        return F.cross_entropy(predicted @ self.items.weight[1:].T, targets - 1)  # (B, V)

    @torch.no_grad()
    def scores(self, items: Tensor, draw: Draw) -> Tensor:
        """Return (B, V + 1) scores of items (B, L) after T reverse steps (Alg. 2)."""
        x = draw((len(items), self.config.width))
        for s in range(self.config.timesteps, 0, -1):
            x_0 = self.approximate(items, x, torch.full_like(items[:, 0], s), draw)
            beta, now, before = self.beta[s - 1], self.alpha_bar[s], self.alpha_bar[s - 1]
            mean = before.sqrt() * beta / (1 - now) * x_0  # Eq. 23; x_0 itself at the last step
            mean = mean + (1 - beta).sqrt() * (1 - before) / (1 - now) * x
            x = mean + (beta * (1 - before) / (1 - now)).sqrt() * draw(tuple(x.shape))
        scores = x @ self.items.weight.T
        scores[:, 0] = -torch.inf
        return scores


class Prefixes(Dataset[tuple[Tensor, Tensor]]):
    """Every prefix of every history: (L,) items, padded on the left, and the item after them."""

    def __init__(self, histories: Histories, length: int) -> None:
        spans = zip(histories.starts, histories.ends, strict=True)
        whole = [histories.items[start:end].tolist() for start, end in spans]
        cuts = [items[:cut] for items in whole for cut in range(2, len(items) + 1)]
        self.length, self.samples = length, [items[-length - 1 :] for items in cuts]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        *prefix, target = self.samples[at]
        return torch.tensor([0] * (self.length - len(prefix)) + prefix), torch.tensor(target)


def gradient_steps(
    model: Reference, histories: Histories, epochs: int, seed: int, preset: Preset
) -> Iterator[tuple[int, float]]:
    """Train; yield rows and loss after each gradient step."""
    config, device = preset.training, model.items.weight.device
    rows, order = Prefixes(histories, preset.model.max_length), torch.Generator().manual_seed(seed)
    loader = DataLoader(rows, config.batch_size, shuffle=True, generator=order)
    adam = torch.optim.Adam(model.parameters(), config.learning_rate)
    decay = torch.optim.lr_scheduler.StepLR(adam, config.decay_every, config.decay_factor)
    model.train()
    for _ in range(epochs):
        for items, targets in loader:
            adam.zero_grad()
            loss = model.loss(items.to(device), targets.to(device))
            loss.backward()
            adam.step()
            yield len(items), loss.item()
        decay.step()


def fit_reference(
    histories: Histories,
    n_items: int,
    epochs: int,
    seed: int,
    *,
    preset: Preset = PRESETS["diffurec"],
    device: str = "cpu",
    progress: Progress = silent,
) -> Reference:
    """Train the reference for so many epochs; the weights of the last one are kept."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # torch's dropout draws from the global generator
        model = Reference(preset.model, n_items, seed).to(device)
        steps = epochs * -(
            -int((histories.lengths - 1).clip(0).sum()) // preset.training.batch_size
        )
        made = gradient_steps(model, histories, epochs, seed, preset)
        for done, (_, loss) in enumerate(made, start=1):
            progress("reference", done, steps, f"loss {loss:.3f}")
    return model.eval()


@dataclass(frozen=True)
class ReferenceScorer:
    """The reference as a scorer of histories, with fresh noise for each user and step."""

    model: Reference
    seed: int = 0
    batch: int = 64

    def __call__(self, histories: Histories) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield rows of users and their (R, V + 1) scores."""
        model, device = self.model.eval(), self.model.items.weight.device
        draw = _normal(device, torch.Generator(device).manual_seed(self.seed))
        known = np.flatnonzero(histories.lengths)
        for rows in np.split(known, range(self.batch, len(known), self.batch)):
            items = padded(histories[rows], model.config.max_length)
            yield rows, model.scores(items.to(device), draw)


def padded(histories: Histories, length: int) -> Tensor:
    """Return the last ``length`` items of each user, (U, length) int64, padding on the left."""
    at = histories.ends[:, None] - np.arange(length, 0, -1)
    held = at >= histories.starts[:, None]
    return torch.from_numpy(np.where(held, histories.items[np.where(held, at, 0)], 0)).long()


def _normal(device: torch.device, generator: torch.Generator | None = None) -> Draw:
    return lambda shape: torch.randn(shape, generator=generator, device=device)
