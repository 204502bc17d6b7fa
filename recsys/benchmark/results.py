"""What one benchmark run gives; `to_dict` is the JSON that its file holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recsys.evaluation.results import EvaluationReport, SplitName
from recsys.model.runtime import MachineInfo
from recsys.training.state import EpochLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recsys.settings import Splitting


@dataclass(frozen=True)
class Epochs:
    """How many epochs ran, and which one was the best."""

    run: int
    best: int


@dataclass(frozen=True)
class DataInfo:
    """The file of a run.

    Attributes:
        file: its name.
        digest: the first digits of its SHA-256.
        users: in it.
        items: in it.
        interactions: in it.
    """

    file: str
    digest: str
    users: int
    items: int
    interactions: int


@dataclass(frozen=True)
class Seconds:
    """Wall time of each part of a run."""

    load: float
    train: float
    evaluate: float

    @property
    def total(self) -> float:
        """Wall time of the run."""
        return self.load + self.train + self.evaluate


@dataclass(frozen=True)
class BenchmarkResult:
    """One system, trained with one seed on one file.

    Attributes:
        system: its name and what was changed in it.
        seed: of training and of the reverse process.
        splitting: how users' histories were divided.
        epochs: of training; None for a baseline.
        validation: on the items that training was stopped by.
        test: on the items that nothing was chosen by.
        seconds: wall time.
        data: the file.
        settings: the model's and its training's, or what a baseline was tuned to.
        runtime: device, precision, machine and versions.
        code_version: of this package.
        log: one entry per epoch; empty for a baseline.
    """

    system: str
    seed: int
    splitting: Splitting
    epochs: Epochs | None
    validation: EvaluationReport
    test: EvaluationReport
    seconds: Seconds
    data: DataInfo
    settings: Mapping[str, Any]
    runtime: MachineInfo
    code_version: str
    log: list[EpochLog]

    def on(self, split: SplitName) -> EvaluationReport:
        """Return the report of one split."""
        return self.validation if split == "validation" else self.test

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists, which JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BenchmarkResult:
        """Return what `to_dict` was called on."""
        records = {
            "epochs": values["epochs"] and Epochs(**values["epochs"]),
            "validation": EvaluationReport.from_dict(values["validation"]),
            "test": EvaluationReport.from_dict(values["test"]),
            "seconds": Seconds(**values["seconds"]),
            "data": DataInfo(**values["data"]),
            "runtime": MachineInfo(**values["runtime"]),
            "log": [EpochLog(**entry) for entry in values["log"]],
        }
        return cls(**{**values, **records})
