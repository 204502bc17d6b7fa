"""The approximator f: how the noised target meets the history, and the Transformer after it.

Letters of shapes are those of `recsys.model.recommender`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recsys.model.config import ModelConfig

KeysValues = tuple[Tensor, Tensor]


def dropout(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Set a share ``rate`` of x to 0 and scale up the rest; without a generator, return x.

    One random byte decides on each element, so the rate is rounded to 1/256, and is 1 at least and
    255 at most of them; torch's own dropout draws a float per element, and from the global
    generator.
    """
    if rate == 0 or generator is None:
        return x
    threshold = min(max(1, round(rate * 256)), 255)
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)
    keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold
    return x * (keep * (256 / (256 - threshold)))


class Additive(nn.Module):
    """z_i = e_i + lambda_i * (x_s + d_s): Eq. 15 of DiffuRec."""

    def __init__(self, config: ModelConfig) -> None:  # noqa: ARG002 - it has no parameters
        super().__init__()

    def forward(self, embedded: Tensor, target: Tensor, history: Tensor, visible: Tensor) -> Tensor:  # noqa: ARG002 - the signature of every approximator
        """Return z (B, J, D) of J positions from their embeddings and their noised targets."""
        return embedded + target


class CrossAttention(nn.Module):
    """z_i = e_i + Y_i with Y = softmax(Q) (softmax(K)^T V): Eq. 16 of DiffuRecSys, well-posed.

    Q comes from the noised target, K and V from the history, and K's softmax runs over the
    positions that are visible. The drawing of the paper has it the other way round; taken
    literally, all keys and values are one vector and the attention returns it whatever Q is. The
    residual keeps positions apart, since Y is all but the same for each of them.

    It is evaluated as A V with A_ji = sum_f softmax(Q)_jf / Z_jf * exp(K)_if over visible i: the
    same numbers, and under a causal mask every position normalises over its own past.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, embedded: Tensor, target: Tensor, history: Tensor, visible: Tensor) -> Tensor:
        """Return z (B, J, D).

        Args:
            embedded: (B, J, D) embeddings of the J positions that are asked for.
            target: (B, J, D) lambda * (x_s + d_s) of each.
            history: (B, L, D) embeddings of the whole history.
            visible: broadcastable to (B, 1, J, L), which position sees which.
        """
        query = _split(self.query(target), self.heads).float().softmax(-1)  # (B, H, J, F)
        key, value = (
            _split(part, self.heads).float() for part in self.key_value(history).chunk(2, dim=-1)
        )
        attention = self.attention(query, key, visible.float())  # (B, H, J, L)
        attended: Tensor = self.out(_join(attention @ value))
        return embedded + attended

    def attention(self, query: Tensor, key: Tensor, visible: Tensor) -> Tensor:
        """Return A (B, H, J, L) from softmax(Q) (B, H, J, F) and K (B, H, L, F)."""
        # A running maximum would let later keys touch earlier positions; a bound does not.
        weight = key.clamp(-30, 30).exp()
        total = visible @ weight  # (B, H, J, F)
        return (query / total) @ weight.transpose(-1, -2) * visible


class HeadwiseCrossAttention(CrossAttention):
    """Cross-attention as released: the softmax of K runs over the heads, not over positions."""

    def attention(self, query: Tensor, key: Tensor, visible: Tensor) -> Tensor:
        """Return A (B, H, J, L); its rows do not add up to one."""
        return query @ key.softmax(1).transpose(-1, -2) * visible


APPROXIMATORS: Mapping[str, type[Additive] | type[CrossAttention]] = {
    "additive": Additive,
    "cross-attention": CrossAttention,
    "headwise": HeadwiseCrossAttention,
}


class Block(nn.Module):
    """Pre-norm Transformer block: self-attention, then a feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout_rate = config.dropout
        self.activation = F.gelu if config.activation == "gelu" else F.relu
        self.norm_attention = nn.LayerNorm(config.width)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_feed = nn.LayerNorm(config.width)
        self.up_proj = nn.Linear(config.width, 4 * config.width)
        self.down_proj = nn.Linear(4 * config.width, config.width)

    def keys_values(self, normed: Tensor) -> KeysValues:
        """Return keys and values (B, H, J, F) of normalised positions (B, J, D)."""
        width = normed.shape[-1]
        layer = self.query_key_value
        key, value = F.linear(normed, layer.weight[width:], layer.bias[width:]).chunk(2, dim=-1)
        return _split(key, self.heads), _split(value, self.heads)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        generator: torch.Generator | None = None,
        past: KeysValues | None = None,
        only: Tensor | None = None,
    ) -> Tensor:
        """Return (B, J, D) from x (B, J, D): attend over L keys, then feed forward.

        Args:
            x: the positions whose keys are attended to, after those of ``past``.
            bias: added to attention scores; fits (B, H, J, L).
            generator: of dropout; None in inference.
            past: keys and values of positions before x.
            only: (M,) int64, which of the B * J positions go on after attention; what is returned
                is (M, D) then.
        """
        query, key, value = self.query_key_value(self.norm_attention(x)).chunk(3, dim=-1)
        key, value = _split(key, self.heads), _split(value, self.heads)
        if past is not None:
            key = torch.cat([past[0], key], dim=2)
            value = torch.cat([past[1], value], dim=2)
        query = _split(query, self.heads)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, H, J, L)
        attention = (scores + bias.to(scores.dtype)).softmax(-1)
        attended = _join(attention @ value)
        if only is not None:
            x, attended = x.flatten(0, 1)[only], attended.flatten(0, 1)[only]
        x = x + dropout(self.out(attended), self.dropout_rate, generator)
        ffn_out: Tensor = self.down_proj(self.activation(self.up_proj(self.norm_feed(x))))
        return x + dropout(ffn_out, self.dropout_rate, generator)


class Transformer(nn.Module):
    """Chained blocks and a closing normalisation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        generator: torch.Generator | None = None,
        past: list[KeysValues] | None = None,
        only: Tensor | None = None,
    ) -> Tensor:
        """Return (B, J, D) from x (B, J, D).

        Args:
            x: the positions that are computed.
            bias: added to attention scores, -inf where a key is hidden; fits (B, H, J, L).
            generator: of dropout; None in inference.
            past: each block's keys and values of positions before x, as ``context`` returned them.
            only: (M,) int64, which of the B * J positions are asked for, and returned as (M, D).
        """
        for nth, block in enumerate(self.blocks):
            last = nth == len(self.blocks) - 1
            x = block(x, bias, generator, past[nth] if past else None, only if last else None)
        normed: Tensor = self.norm(x)
        return normed

    def context(self, x: Tensor, bias: Tensor) -> list[KeysValues]:
        """Return each block's keys and values of x (B, L, D), for positions that come after."""
        past = []
        for block in cast("list[Block]", list(self.blocks)):  # ModuleList forgets the type
            past.append(block.keys_values(block.norm_attention(x)))
            if len(past) < len(self.blocks):
                x = block(x, bias)
        return past


def at_position(x: Tensor, position: Tensor) -> Tensor:
    """Return (B, 1, D): one position (B,) of each row of x (B, L, D)."""
    return x[torch.arange(len(x), device=x.device), position].unsqueeze(1)


def _split(x: Tensor, heads: int) -> Tensor:
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)  # (B, J, D) -> (B, H, J, F)


def _join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (B, H, J, F) -> (B, J, D)
