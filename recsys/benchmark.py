"""Train and evaluate one preset on a Parquet file: no lake, no Prefect."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import duckdb

from recsys import columns
from recsys.errors import ConfigurationError, GateError, SourceError
from recsys.evaluation.baselines import Popularity
from recsys.evaluation.protocol import evaluate, leave_one_out, validator
from recsys.model.presets import resolve
from recsys.model.scoring import Scorer
from recsys.progress import Progress, silent
from recsys.sequences import Histories, pack
from recsys.training.trainer import fit
from sql import literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from recsys.model.runtime import Runtime


def benchmark(
    file: Path,
    *,
    preset: str,
    seed: int,
    epochs: int | None,
    overrides: Mapping[str, Any],
    runtime: Runtime,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train and evaluate leave-one-out over the file's whole catalogue.

    Args:
        file: Parquet of user_id, item_id, timestamp; ties in time keep the file's order.
        preset: a named model and its training.
        seed: of training and of the reverse process.
        epochs: most epochs; the preset's when None.
        overrides: preset field -> value.
        runtime: device, threads and precision.
        progress: told as the work goes on.

    Returns:
        ``preset``, ``seed``, ``epochs`` (run, and the best one), ``validation`` and ``test``, each
        with ``users``, ``masked`` and ``unmasked`` of ``hr@5`` to ``ndcg@20``; ``popularity`` with
        the same two; ``seconds`` of ``load``, ``train`` and ``evaluate``; ``config``, ``runtime``,
        ``data`` and ``log``.

    Raises:
        ConfigurationError: preset, field or value is not known.
        SourceError: the file can't be read or lacks a column.
        GateError: too few interactions to train or to judge.
    """
    resolved = resolve(preset, overrides)
    if epochs is not None and epochs < 1:
        raise ConfigurationError(f"epochs = {epochs} is not allowed; it must be 1 or more")
    clock = [time.perf_counter()]
    progress("loading", 0, 1)
    histories, n_items = _load(file)
    split = leave_one_out(histories)
    if not len(split.validation):
        raise GateError(f"{file}: no user has three interactions, so nothing can be validated")
    progress("loading", 1, 1)
    clock.append(time.perf_counter())

    fitted = fit(
        split.train,
        n_items,
        resolved,
        seed=seed,
        runtime=runtime,
        validate=validator(split.validation, seed=seed, runtime=runtime),
        epochs=epochs,
        progress=progress,
    )
    clock.append(time.perf_counter())

    scorer = Scorer(fitted.model, seed=seed, runtime=runtime)
    popularity = Popularity.of(split.train, n_items)
    judged = {
        "validation": evaluate(scorer, split.validation, progress),
        "test": evaluate(scorer, split.test, progress),
    }
    clock.append(time.perf_counter())
    return {
        "preset": preset,
        "seed": seed,
        "epochs": {"run": len(fitted.log), "best": fitted.best_epoch},
        **judged,
        "popularity": {
            "validation": evaluate(popularity, split.validation),
            "test": evaluate(popularity, split.test),
        },
        "seconds": {
            name: clock[at + 1] - clock[at] for at, name in enumerate(("load", "train", "evaluate"))
        },
        "data": {
            "file": file.name,
            "users": len(histories),
            "items": n_items,
            "interactions": int(histories.lengths.sum()),
        },
        "config": asdict(resolved),
        "runtime": runtime.describe(),
        "log": fitted.log,
    }


def _load(file: Path) -> tuple[Histories, int]:
    if not file.is_file():
        raise SourceError(f"no file {file}")
    named = ", ".join(columns.REQUIRED)
    with duckdb.connect() as con:
        try:
            con.execute(
                f"create view interactions as select {named}, null::timestamptz as ingested_at, "  # noqa: S608 - constants and a quoted literal
                f"file_row_number as source_row "
                f"from read_parquet({literal(str(file))}, file_row_number = true)"
            )
            packed = pack(con)
        except duckdb.Error as error:
            raise SourceError(
                f"{file} can't be read as Parquet with the columns {named}: {error}"
            ) from error
    if not len(packed.items):
        raise SourceError(f"{file} holds no interactions")
    return packed.histories, len(packed.items)
