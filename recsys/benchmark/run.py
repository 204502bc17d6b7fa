"""Train and judge one system on one Parquet file: no lake, no Prefect."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import duckdb

from recsys import columns
from recsys.errors import ConfigurationError, GateError, SourceError
from recsys.evaluation.baselines import ItemKNN, Popularity, Transitions
from recsys.evaluation.protocol import Scorer, evaluate, evaluation_report, validator
from recsys.evaluation.splits import leave_one_out, reindex_by_train_popularity, temporal
from recsys.lake.engine import Limits, column_types, open_duckdb, type_family
from recsys.lake.packing import pack
from recsys.model.presets import PRESETS, resolve
from recsys.model.scoring import Scorer as ModelScorer
from recsys.progress import Progress, silent
from recsys.training.trainer import fit
from recsys.version import code_version
from sql import file_literal, load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from recsys.evaluation.splits import Split
    from recsys.model.runtime import Runtime

Splitting = Literal["leave-one-out", "temporal"]
BASELINES = ("popularity", "transitions", "item-knn")
_LIMITS = Limits()
SHOWN = 12  # digits of a file's digest
_VALIDATED, _TESTED = 0.8, 0.9  # shares of the interactions before the moments of `temporal`


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
        """Read ``NAME`` or ``NAME:field=value,field=value``; ``overrides`` go before its own.

        Raises:
            ConfigurationError: no such system or field, or a value that the field does not take.
        """
        name, _, changes = text.partition(":")
        own = dict(overrides or {}) if name not in BASELINES else {}
        for change in filter(None, changes.split(",")):
            field, equals, value = change.partition("=")
            if not equals:
                raise ConfigurationError(f"{text!r} should read NAME:field=value,field=value")
            own[field.strip()] = value
        system = cls(name, own)
        if name in BASELINES and own:
            raise ConfigurationError(f"{name} has nothing that can be set")
        if name not in BASELINES and name not in PRESETS:
            raise ConfigurationError(
                f"no system {name!r}; there are {', '.join([*PRESETS, *BASELINES])}"
            )
        if name in PRESETS:
            resolve(name, own)
        return system

    def __str__(self) -> str:
        changed = ",".join(f"{field}={value}" for field, value in self.overrides.items())
        return f"{self.name}:{changed}" if changed else self.name


def benchmark(
    file: Path,
    system: System,
    *,
    seed: int,
    runtime: Runtime,
    epochs: int | None = None,
    splitting: Splitting = "leave-one-out",
    limits: Limits = _LIMITS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train one system, chosen on validation, and judge it over the file's whole catalogue.

    Args:
        file: Parquet of user_id, item_id, timestamp; ties in time keep the file's order.
        system: what is trained.
        seed: of training and of the reverse process.
        runtime: device, threads and precision.
        epochs: most epochs; the preset's when None.
        splitting: ``leave-one-out``: each user's last item is the test, the one before validates;
            ``temporal``: the first item after the moment at which 90 % of all interactions have
            been, and of 80 % for validation; it needs timestamps that are real.
        limits: of the DuckDB that reads the file; the threads are the runtime's.
        progress: told as the work goes on.

    Returns:
        ``system``, ``seed``, ``splitting``; ``epochs`` (run, and the best one) and ``log`` of
        training; ``validation`` and ``test``, each as `evaluation_report` returns it; ``seconds``
        of
        ``load``, ``train`` and ``evaluate``; ``settings``, ``runtime``, ``data`` and
        ``code_version``.

    Raises:
        ConfigurationError: a setting is out of range.
        SourceError: the file can't be read, or lacks a column or some of its values.
        GateError: too few interactions to train or to judge.
    """
    if epochs is not None and epochs < 1:
        raise ConfigurationError(f"epochs = {epochs} is not allowed; it must be 1 or more")
    clock, code = [time.perf_counter()], code_version()  # before the code can change on disk
    progress("loading", 0, 1)
    split, data = _load(file, splitting, replace(limits, threads=runtime.threads))
    n_items = data["items"]
    if not len(split.validation) or not len(split.test):
        needed = "three interactions" if splitting == "leave-one-out" else "one at the right time"
        raise GateError(f"{file}: no user has {needed}, so nothing can be judged")
    progress("loading", 1, 1)
    clock.append(time.perf_counter())

    fitted = None
    scorer: Scorer
    settings: Mapping[str, Any]
    if system.name in BASELINES:
        scorer, settings = _baseline(system.name, split, n_items)
    else:
        preset = resolve(system.name, system.overrides)
        fitted = fit(
            split.train,
            n_items,
            preset,
            seed=seed,
            runtime=runtime,
            validate=validator(split.validation, seed=seed, runtime=runtime),
            epochs=epochs,
            progress=progress,
        )
        scorer = ModelScorer(fitted.model, seed=seed, runtime=runtime)
        training = replace(preset.training, epochs=epochs or preset.training.epochs)
        settings = {"model": asdict(fitted.model.config), "training": asdict(training)}
    clock.append(time.perf_counter())
    judged = {
        name: evaluation_report(scorer, held_out, split.train, n_items, progress)
        for name, held_out in split.held_out.items()
    }
    clock.append(time.perf_counter())
    return {
        "system": str(system),
        "seed": seed,
        "splitting": splitting,
        "epochs": {"run": len(fitted.log), "best": fitted.best_epoch} if fitted else None,
        **judged,
        "seconds": {
            name: clock[at + 1] - clock[at] for at, name in enumerate(("load", "train", "evaluate"))
        },
        "data": data,
        "settings": settings,
        "runtime": runtime.describe(),
        "code_version": code,
        "log": fitted.log if fitted else [],
    }


def _baseline(
    name: str, split: Split, n_items: int
) -> tuple[Popularity | Transitions | ItemKNN, dict[str, float]]:
    if name == "popularity":
        return Popularity.of(split.train, n_items), {}
    if name == "transitions":
        return Transitions.of(split.train, n_items), {}
    return ItemKNN.tuned(
        split.train,
        n_items,
        lambda model: float(evaluate(model, split.validation)["masked"]["ndcg@10"]),
    )


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{file} can't be read: {error.strerror}") from error


def _require_whole(con: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Refuse rows without an id or a moment, and moments that are text and so lack an order."""
    counted = ", ".join(f"count(*) - count({name}) as {name}" for name in columns.REQUIRED)
    (nulls,) = con.sql(f"select {counted} from interactions").to_arrow_table().to_pylist()  # noqa: S608 - constants
    for name, missing in nulls.items():
        if missing:
            raise SourceError(f"{file}: {missing:,} rows have no {name}; leave them out")
    if type_family(column_types(con, "interactions")[columns.TIMESTAMP]) == "text":
        raise SourceError(f"{file}: timestamp is text; make it a timestamp or a number")


def _load(file: Path, splitting: Splitting, limits: Limits) -> tuple[Split, dict[str, Any]]:
    if not file.is_file():
        raise SourceError(f"no file {file}")
    if splitting not in get_args(Splitting):
        raise ConfigurationError(
            f"no split {splitting!r}; there are {', '.join(get_args(Splitting))}"
        )
    named = ", ".join(columns.REQUIRED)
    with open_duckdb(limits) as con:
        try:
            con.execute(
                f"create view interactions as select {named}, null::timestamptz as ingested_at, "  # noqa: S608 - constants and a quoted literal
                f"file_row_number as source_row "
                f"from read_parquet({file_literal(str(file))}, file_row_number = true)"
            )
            _require_whole(con, file)
            packed = pack(con)
            if splitting == "temporal":
                shares = {"validated": _VALIDATED, "tested": _TESTED}
                counted = con.sql(
                    load("benchmark/interactions_before_split"), params=shares
                ).to_arrow_table()
        except duckdb.Error as error:
            raise SourceError(
                f"{file} can't be read as Parquet with the columns {named}: {error}"
            ) from error
    if not len(packed.items):
        raise SourceError(f"{file} holds no interactions")
    divided = leave_one_out
    if splitting == "temporal":
        before = [counted[name].to_numpy() for name in ("before_validation", "before_test")]
        divided = partial(temporal, before_validation=before[0], before_test=before[1])
    packed, split = reindex_by_train_popularity(packed, divided)
    data = {
        "file": file.name,
        "digest": file_digest(file)[:SHOWN],
        "users": len(packed.histories),
        "items": len(packed.items),
        "interactions": int(packed.histories.lengths.sum()),
    }
    return split, data
