"""What a model is and how it is trained, as two small validated records."""

from __future__ import annotations

import inspect
import operator
import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

from recsys.errors import ConfigurationError

Objective = Literal["causal", "prefix"]
Approximator = Literal["none", "additive", "cross-attention", "headwise"]
Padding = Literal["hidden", "attended"]
Positions = Literal["none", "reversed", "relative"]
Activation = Literal["gelu", "relu"]
Schedule = Literal["truncated-linear", "linear", "cosine", "sqrt"]
Offset = Literal["none", "mean", "iid", "shared"]
Similarity = Literal["dot", "cosine"]
RepeatBias = Literal["none", "learned"]
Decay = Literal["constant", "step", "plateau"]

_MOST = 2**31 - 1
"""The largest whole number of any field."""

_BOUNDS = {  # as JSON Schema calls them -> whether a value keeps one, and how it is told
    "minimum": (operator.ge, "{:,} or more"),
    "exclusiveMinimum": (operator.gt, "above {:,}"),
    "maximum": (operator.le, "at most {:,}"),
    "exclusiveMaximum": (operator.lt, "below {:,}"),
}


def _at_least(minimum: int, default: int) -> Any:
    return field(default=default, metadata={"minimum": minimum, "maximum": _MOST})


def _share(default: float) -> Any:
    return field(default=default, metadata={"minimum": 0, "exclusiveMaximum": 1})


def _between(default: float, **bounds: float) -> Any:
    return field(default=default, metadata=bounds)


@dataclass(frozen=True)
class ModelConfig:
    """The network and its diffusion.

    Attributes:
        objective: ``prefix`` (one row per prefix, every position sees every other) or ``causal``
            (one pass over a history, every position predicts its next item).
        approximator: how the noised target meets the history: ``additive`` (Eq. 15),
            ``cross-attention`` (Eq. 16), ``headwise`` (Eq. 16 as released) or ``none``: not at all,
            the network without diffusion.
        padding: ``hidden``, or ``attended``: every row is filled up to ``max_length`` with padding
            that is attended to and, in training, scored, as the released code does; prefix only.
        width: D, size of an embedding.
        heads: attention heads; divides the width.
        blocks: Transformer blocks, chained.
        max_length: L, most items of a history that are looked at, the newest.
        positions: ``reversed`` (an embedding counted from the right end), ``relative`` (a learned
            attention bias by distance) or ``none``.
        activation: nonlinearity of the feed-forward layers.
        dropout: share dropped of what attention and feed-forward layers add.
        embedding_dropout: share dropped of the history's embeddings.
        item_dropout: share of the history's items that training hides whole; their positions stay.
        similarity: how a predicted target and an item compare: ``dot``, their product (Eq. 26), or
            ``cosine``, the product of their directions over ``temperature``.
        temperature: what the scores of ``similarity = cosine`` are divided by.
        repeat_bias: ``learned`` adds a learned number to the scores of items that the user has had:
            how likely anything is to come again; ``none``, as published, adds nothing.
        init_std: standard deviation of the item embeddings at the start.
        schedule: how the noise grows over the diffusion steps.
        timesteps: T, diffusion steps in training.
        steps: reverse steps at inference when the caller names none, 1..T.
        delta: mean and standard deviation of lambda, the weight of the noised target.
        offset: form of the offset noise in training (Eq. 17).
        offset_scale: size of the offset noise.
    """

    objective: Objective = "causal"
    approximator: Approximator = "additive"
    padding: Padding = "hidden"
    width: int = _at_least(1, 128)
    heads: int = _at_least(1, 4)
    blocks: int = _at_least(1, 2)
    max_length: int = _at_least(1, 50)
    positions: Positions = "reversed"
    activation: Activation = "gelu"
    dropout: float = _share(0.1)
    embedding_dropout: float = _share(0.3)
    item_dropout: float = _share(0.0)
    similarity: Similarity = "dot"
    temperature: float = _between(0.07, minimum=0.001, maximum=100)
    repeat_bias: RepeatBias = "none"
    init_std: float = _between(0.02, exclusiveMinimum=0, exclusiveMaximum=100)
    schedule: Schedule = "truncated-linear"
    timesteps: int = _at_least(1, 32)
    steps: int = _at_least(1, 32)
    delta: float = _between(0.001, minimum=0, exclusiveMaximum=100)
    offset: Offset = "none"
    offset_scale: float = _between(0.1, minimum=0, exclusiveMaximum=100)

    def __post_init__(self) -> None:
        _check_types(self)
        _check_bounds(self)
        setting = self.objective, self.repeat_bias, self.similarity
        if self.padding == "attended" and setting != ("prefix", "none", "dot"):
            raise ConfigurationError(
                "padding = attended goes with objective = prefix, repeat_bias = none and "
                "similarity = dot"
            )
        _require(self, "steps", self.steps <= self.timesteps, f"1..{self.timesteps}")
        _require(self, "heads", self.width % self.heads == 0, f"a divisor of width {self.width}")
        _require(self, "width", self.width % 2 == 0, "an even number")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is fitted.

    Attributes:
        epochs: most passes over the training targets.
        batch_size: targets of one gradient step: rows for ``prefix``, positions for ``causal``.
        batch_tokens: about the most tokens of one step; it bounds memory.
        learning_rate: Adam's learning rate.
        weight_decay: L2 penalty inside Adam's gradient.
        decay: how the learning rate falls: ``constant``, not at all; ``step`` (times
            ``decay_factor`` every ``decay_every`` epochs); or ``plateau`` (times
            ``decay_factor``, from the best weights so far, when ``decay_every`` validations in a
            row brought nothing).
        decay_every: epochs of ``step``, or validations of ``plateau``, until the rate is cut.
        decay_factor: what a cut multiplies the rate by.
        warmup: gradient steps over which the learning rate rises to its value.
        clip_norm: largest norm of the gradient; 0 leaves it alone.
        average: gradient steps, an epoch's at most, that a moving average of the weights looks back
            over; it is what is validated and kept. 0 is the weights themselves.
        validate_every: epochs from one validation to the next.
        patience: validations in a row without a new best before training stops.
        negatives: sampled items that a step's softmax runs over, with logQ correction; 0 is the
            whole catalogue. For catalogues that it is too slow for; on 12,000 items both are alike.
    """

    epochs: int = _at_least(1, 100)
    batch_size: int = _at_least(1, 1024)
    batch_tokens: int = _at_least(1, 32_768)
    learning_rate: float = _between(1e-3, exclusiveMinimum=0, exclusiveMaximum=100)
    weight_decay: float = _between(0.0, minimum=0, exclusiveMaximum=100)
    decay: Decay = "constant"
    decay_every: int = _at_least(1, 1)
    decay_factor: float = _between(0.1, exclusiveMinimum=0, maximum=1)
    warmup: int = _at_least(0, 0)
    clip_norm: float = _between(0.0, minimum=0, exclusiveMaximum=1e9)
    average: int = _at_least(0, 0)
    validate_every: int = _at_least(1, 1)
    patience: int = _at_least(1, 5)
    negatives: int = _at_least(0, 0)

    def __post_init__(self) -> None:
        _check_types(self)
        _check_bounds(self)
        if self.decay == "plateau":
            allowed = f"below patience {self.patience}, or training stops before it decays"
            _require(self, "decay_every", self.decay_every < self.patience, allowed)


RESEARCH_FIELDS = frozenset(
    {
        *("heads", "temperature", "init_std", "schedule", "timesteps", "delta", "offset_scale"),
        *("decay_factor", "warmup", "clip_norm"),
    }
)
"""Fields for experiments: no preset changes them, and no trial found a better value.

See docs/experiment-log.md. A first look at the settings can leave them out.
"""


_JSON = {int: "integer", float: "number"}


def meanings(config: type) -> dict[str, str]:
    """Return field -> its meaning, out of the `Attributes:` of the docstring."""
    doc = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")[2]
    told: dict[str, str] = {}
    for line in doc.splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            name, told[match[1]] = match[1], match[2]
        elif line.strip():
            told[name] += " " + line.strip()
    return told


def json_schema(config: type) -> dict[str, dict[str, Any]]:
    """Return field -> its JSON Schema: type, bounds, meaning."""
    hints, told = get_type_hints(config), meanings(config)
    properties: dict[str, dict[str, Any]] = {}
    for each in fields(config):
        choices = get_args(hints[each.name])
        kind = {"enum": list(choices)} if choices else {"type": _JSON[hints[each.name]]}
        properties[each.name] = {
            "title": each.name,
            "description": told[each.name][:1].upper() + told[each.name][1:],
            **kind,
            **each.metadata,
        }
    return properties


def converted(config: type, name: str, value: Any) -> Any:
    """Return ``value`` as the type of a field, reading numbers from strings.

    Raises:
        ConfigurationError: it is not of that type.
    """
    kind = get_type_hints(config)[name]
    if choices := get_args(kind):
        if value in choices:
            return value
        raise _refusal(name, value, "one of " + ", ".join(choices))
    allowed = "a whole number" if kind is int else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _refusal(name, value, allowed)
    try:
        number = kind(value)
    except (ValueError, OverflowError) as error:
        raise _refusal(name, value, allowed) from error
    if not isinstance(value, str) and number != value:
        raise _refusal(name, value, allowed)
    return number


def _check_types(config: Any) -> None:
    for each in fields(config):
        value = getattr(config, each.name)
        number_or_choice = converted(type(config), each.name, value)
        if isinstance(value, str) and not isinstance(number_or_choice, str):
            raise _refusal(each.name, value, "a number, not text")
        object.__setattr__(config, each.name, number_or_choice)


def _check_bounds(config: Any) -> None:
    for each in fields(config):
        value = getattr(config, each.name)
        if any(not _BOUNDS[name][0](value, bound) for name, bound in each.metadata.items()):
            told = (_BOUNDS[name][1].format(bound) for name, bound in each.metadata.items())
            raise _refusal(each.name, value, " and ".join(told))


def _require(config: Any, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise _refusal(name, getattr(config, name), allowed)


def _refusal(name: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{name} = {value!r} is not allowed; it must be {allowed}")
