"""How sure a list is: the probability that the user's next item is in it, by held-out users.

A model's own probabilities say what it learnt, not how often it is right. A logistic regression on
users whose items it never learnt from maps the one onto the other (Platt 1999).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import NDArray

_SMALLEST = 1e-6  # probability, so that its logit is finite
_RIDGE = 1.0  # of one user's weight: a fit of few users stays near the model's own probability
_ITERATIONS = 100
_CLOSE = 1e-9
_FEWEST = 50  # users who decide


@dataclass(frozen=True)
class Calibration:
    """Confidence = sigmoid(offset + slope logit(s) + of_length log(1 + n)).

    s is the model's own probability of a list, and n the length of the user's history.

    Attributes:
        offset: what is added.
        slope: below 1 where the model is too sure of itself.
        of_length: what a longer history adds.
    """

    offset: float
    slope: float
    of_length: float

    @classmethod
    def fit(
        cls,
        share: NDArray[np.float64],
        lengths: NDArray[np.int64],
        hits: NDArray[np.bool_],
    ) -> Self | None:
        """Maximise the likelihood of who was hit, by Newton's method; None for too few users.

        Args:
            share: (U,) the model's own probability of each user's list.
            lengths: (U,) of their histories.
            hits: (U,) whether the list had the held-out item.
        """
        if len(hits) < _FEWEST or hits.all() or not hits.any():
            return None
        features = _features(share, lengths)
        start = np.array([0.0, 1.0, 0.0])

        def loss(weights: NDArray[np.float64]) -> float:
            logit = features @ weights
            likelihood = (np.logaddexp(0, logit) - hits * logit).sum()
            return float(likelihood + _RIDGE / 2 * ((weights - start) ** 2).sum())

        weights = start
        for _ in range(_ITERATIONS):
            expected = _sigmoid(features @ weights)
            gradient = features.T @ (hits - expected) - _RIDGE * (weights - start)
            spread = (expected * (1 - expected))[:, None] * features
            step = np.linalg.solve(features.T @ spread + _RIDGE * np.eye(3), gradient)
            while loss(weights + step) > loss(weights) and np.abs(step).max() > _CLOSE:
                step /= 2  # a whole step may lead away where users are all but certain
            weights = weights + step
            if np.abs(step).max() <= _CLOSE:
                break
        return cls(*weights.tolist())

    def __call__(
        self, share: NDArray[np.floating[Any]], lengths: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the (U,) confidence of lists; see `fit`."""
        weights = np.array([self.offset, self.slope, self.of_length])
        return _sigmoid(_features(share, lengths) @ weights).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` was called on."""
        return cls(*(values[name] for name in ("offset", "slope", "of_length")))


def _features(share: NDArray[np.floating[Any]], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    bounded = np.clip(np.asarray(share, dtype=np.float64), _SMALLEST, 1 - _SMALLEST)
    logit = np.log(bounded) - np.log1p(-bounded)
    return np.stack([np.ones_like(logit), logit, np.log1p(lengths)], axis=1)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -x))


@dataclass(frozen=True)
class CalibrationReport:
    """How far the confidence of lists is from how often they had the user's next item.

    Attributes:
        users: who were asked.
        error: the expected calibration error (Naeini et al. 2015): the mean distance of confidence
            and hit rate over tenths of the users, by confidence.
        deciles: of each tenth, the least sure first, [mean confidence, hit rate].
    """

    users: int
    error: float
    deciles: list[list[float]]

    @classmethod
    def of(cls, confidence: NDArray[np.floating[Any]], hits: NDArray[np.bool_]) -> Self:
        """Compare the (U,) confidence of lists with (U,) whether they had the item."""
        order = np.argsort(confidence, kind="stable")
        tenths = [users for users in np.array_split(order, 10) if len(users)]
        deciles = [[float(part[users].mean()) for part in (confidence, hits)] for users in tenths]
        sizes = np.array([len(users) for users in tenths])
        apart = np.array([abs(sure - rate) for sure, rate in deciles])
        return cls(len(hits), float((apart * sizes).sum() / max(1, sizes.sum())), deciles)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)
