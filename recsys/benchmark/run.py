"""Train and judge one system on one Parquet file: no lake, no Prefect."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from recsys.benchmark.files import read_split
from recsys.benchmark.results import BenchmarkResult, Epochs, Seconds
from recsys.errors import ConfigurationError
from recsys.evaluation.baselines import ItemKNN, Popularity, Transitions
from recsys.evaluation.protocol import evaluate, evaluation_report, validator
from recsys.evaluation.results import SplitResults
from recsys.lake.engine import Limits
from recsys.model.presets import PRESETS, resolve
from recsys.model.scoring import ModelScorer
from recsys.progress import Progress, silent
from recsys.training.trainer import fit
from recsys.version import code_version

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from recsys.evaluation.protocol import Scorer
    from recsys.evaluation.results import EvaluationReport
    from recsys.evaluation.splits import HeldOut, Split
    from recsys.model.runtime import Runtime
    from recsys.settings import Splitting
    from recsys.training.state import EpochLog

BASELINES = ("popularity", "transitions", "item-knn")
_LIMITS = Limits()


@dataclass(frozen=True)
class System:
    """What is judged: a baseline, or a preset with some fields changed.

    Attributes:
        name: of one of ``BASELINES`` or of a preset.
        overrides: preset field -> value.
    """

    name: str
    overrides: Mapping[str, Any]

    @classmethod
    def read(cls, text: str, overrides: Mapping[str, Any] | None = None) -> System:
        """Read ``NAME`` or ``NAME:field=value,field=value``; the text's fields replace others.

        Raises:
            ConfigurationError: no such system or field, or a value that the field does not take.
        """
        name, _, changes = text.partition(":")
        fields = dict(overrides or {}) if name not in BASELINES else {}
        for change in filter(None, changes.split(",")):
            field, equals, value = change.partition("=")
            if not equals:
                raise ConfigurationError(f"{text!r} should read NAME:field=value,field=value")
            fields[field.strip()] = value
        if name in BASELINES and fields:
            raise ConfigurationError(f"{name} has nothing that can be set")
        if name not in BASELINES and name not in PRESETS:
            raise ConfigurationError(
                f"no system {name!r}; there are {', '.join([*PRESETS, *BASELINES])}"
            )
        if name in PRESETS:
            resolve(name, fields)
        return cls(name, fields)

    def __str__(self) -> str:
        changes = ",".join(f"{field}={value}" for field, value in self.overrides.items())
        return f"{self.name}:{changes}" if changes else self.name


def benchmark(
    file: Path,
    system: System,
    *,
    seed: int,
    runtime: Runtime,
    splitting: Splitting = "leave-one-out",
    limits: Limits = _LIMITS,
    progress: Progress = silent,
) -> BenchmarkResult:
    """Train one system, chosen on validation, and judge it over the file's whole catalogue.

    Args:
        file: Parquet of user_id, item_id, timestamp; ties in time keep the file's order.
        system: what is trained.
        seed: of training and of the reverse process.
        runtime: device, threads and precision.
        splitting: see `read_split`.
        limits: of the DuckDB that reads the file; the threads are the runtime's.
        progress: called as the work goes on.

    Raises:
        ConfigurationError: a setting is out of range.
        SourceError, GateError: see `read_split`.
    """
    started, code = time.perf_counter(), code_version()  # before the code can change on disk
    progress("loading", 0, 1)
    split, data = read_split(file, splitting, replace(limits, threads=runtime.threads))
    progress("loading", 1, 1)
    after_loading = time.perf_counter()
    trained = _train(system, split, data.items, seed, runtime, progress)
    after_training = time.perf_counter()

    def report(held_out: HeldOut) -> EvaluationReport:
        return evaluation_report(trained.scorer, held_out, split.train, data.items, progress)

    reports = SplitResults.of(split, report)
    after_evaluation = time.perf_counter()
    return BenchmarkResult(
        system=str(system),
        seed=seed,
        splitting=splitting,
        epochs=trained.epochs,
        validation=reports.validation,
        test=reports.test,
        seconds=Seconds(
            load=after_loading - started,
            train=after_training - after_loading,
            evaluate=after_evaluation - after_training,
        ),
        data=data,
        settings=trained.settings,
        runtime=runtime.machine_info(),
        code_version=code,
        log=trained.log,
    )


@dataclass(frozen=True)
class _TrainedSystem:
    """A system that can rank; see `BenchmarkResult` for the rest."""

    scorer: Scorer
    settings: Mapping[str, Any]
    epochs: Epochs | None
    log: list[EpochLog]


def _train(
    system: System,
    split: Split,
    n_items: int,
    seed: int,
    runtime: Runtime,
    progress: Progress,
) -> _TrainedSystem:
    if system.name in BASELINES:
        return _TrainedSystem(*_baseline(system.name, split, n_items), None, [])
    preset = resolve(system.name, system.overrides)
    fitted = fit(
        split.train,
        n_items,
        preset,
        seed=seed,
        runtime=runtime,
        validate=validator(split.validation, seed=seed, runtime=runtime),
        progress=progress,
    )
    return _TrainedSystem(
        ModelScorer(fitted.model, seed=seed, runtime=runtime),
        {"model": asdict(fitted.model.config), "training": asdict(preset.training)},
        Epochs(len(fitted.log), fitted.best_epoch),
        fitted.log,
    )


def _baseline(name: str, split: Split, n_items: int) -> tuple[Scorer, dict[str, float]]:
    if name == "popularity":
        return Popularity.of(split.train, n_items), {}
    if name == "transitions":
        return Transitions.of(split.train, n_items), {}
    return ItemKNN.tuned(
        split.train, n_items, lambda model: evaluate(model, split.validation).masked["ndcg@10"]
    )
