"""What an evaluation returns, as records; `to_dict` gives what tables and files hold as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

if TYPE_CHECKING:
    from typing import Self

    from recsys.evaluation.splits import HeldOut, Split

Protocol = Literal["masked", "unmasked"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""Items of the history left out of the ranking, or in it."""

SplitName = Literal["validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

Metrics = Mapping[str, float]
"""Value of each metric, by name: ``ndcg@10``."""


@dataclass(frozen=True)
class Evaluation:
    """Means over users of every metric, in both protocols.

    Attributes:
        users: how many users were ranked.
        masked: metrics without the items of each user's history.
        unmasked: metrics with them.
    """

    users: int
    masked: Metrics
    unmasked: Metrics

    def metrics(self, protocol: Protocol) -> Metrics:
        """Return the metrics of one protocol."""
        return self.masked if protocol == "masked" else self.unmasked

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists, which JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` was called on."""
        return cls(**values)


@dataclass(frozen=True)
class Slice(Evaluation):
    """The metrics of a part of the users.

    Attributes:
        name: which users, such as ``history 3-5``.
    """

    name: str


@dataclass(frozen=True)
class EvaluationReport(Evaluation):
    """An evaluation, how certain it is, for which users it holds, and what the lists contain.

    Attributes:
        intervals: protocol -> metric -> low and high end of its 95 % bootstrap interval.
        slices: users by history length (quintiles), and by whether their target is among the most
            popular fifth of the items.
        lists: of the masked top 10: ``coverage@10``, ``novelty@10`` (bits) and ``popularity@10``
            (mean interactions of an item).
    """

    intervals: Mapping[str, Mapping[str, list[float]]]
    slices: list[Slice]
    lists: Metrics

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` was called on."""
        return cls(**{**values, "slices": [Slice.from_dict(part) for part in values["slices"]]})


E = TypeVar("E", bound=Evaluation)


@dataclass(frozen=True)
class SplitResults(Generic[E]):
    """One system's evaluation on the validation items and on the test items."""

    validation: E
    test: E

    @classmethod
    def of(cls, split: Split, judge: Callable[[HeldOut], E]) -> SplitResults[E]:
        """Return what ``judge`` says of both."""
        return SplitResults(judge(split.validation), judge(split.test))

    def on(self, split: SplitName) -> E:
        """Return one of the two."""
        return self.validation if split == "validation" else self.test

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists, which JSON can hold."""
        return asdict(self)
