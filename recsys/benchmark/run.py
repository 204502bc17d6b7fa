"""Train and judge systems on Parquet files: no lake, no Prefect."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Literal, get_args

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recsys import columns
from recsys.benchmark.tables import rendered
from recsys.errors import ConfigurationError, GateError, SourceError
from recsys.evaluation.baselines import ItemKNN, Popularity, Transitions
from recsys.evaluation.protocol import (
    PROTOCOLS,
    Scorer,
    assess,
    evaluate,
    leave_one_out,
    numbered,
    temporal,
    validator,
)
from recsys.lake.engine import column_types, type_family
from recsys.lake.packing import pack
from recsys.model.presets import PRESETS, resolve
from recsys.model.scoring import Scorer as ModelScorer
from recsys.progress import Progress, silent
from recsys.training.trainer import fit
from recsys.version import code_version
from sql import file_literal, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from recsys.evaluation.protocol import Split
    from recsys.model.runtime import Runtime

Splitting = Literal["leave-one-out", "temporal"]
BASELINES = ("popularity", "transitions", "item-knn")
_SHOWN = 12  # digits of a file's digest
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
        progress: told as the work goes on.

    Returns:
        ``system``, ``seed``, ``splitting``; ``epochs`` (run, and the best one) and ``log`` of
        training; ``validation`` and ``test``, each as `assess` returns it; ``seconds`` of
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
    split, data = _load(file, splitting)
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
        name: assess(scorer, withheld, split.train, n_items, progress)
        for name, withheld in split.withheld.items()
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


def matrix(
    files: Sequence[Path],
    systems: Sequence[System],
    seeds: Sequence[int],
    folder: Path,
    *,
    runtime: Runtime,
    epochs: int | None = None,
    splitting: Splitting = "leave-one-out",
    jobs: int = 1,
    progress: Progress = silent,
) -> str:
    """Run every file x system x seed that ``folder`` does not hold yet; return the tables.

    Each run's JSON is written as it ends, so that a matrix that was cut goes on where it was; a
    run is another one when its file, settings, device, precision, torch or code are others. Then
    ``results.parquet`` (one row a run, split, slice, protocol and metric) and ``tables.md`` are
    written.
    Baselines have no seed, and run once; so do systems of two names and the same settings.

    Args:
        files: see `benchmark`.
        systems: likewise.
        seeds: of the presets.
        folder: where results go.
        runtime: device, threads and precision of each run; with ``jobs``, cores are shared out.
        epochs: most epochs; the preset's when None.
        splitting: see `benchmark`.
        jobs: runs at a time, each in a process of its own and with a model of its own in memory.
        progress: told as runs end.

    Raises:
        ConfigurationError, GateError: see `benchmark`; results so far are kept.
        SourceError: likewise, or a file or the code changed while it was run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests = {file: _digest(file) for file in files}
    wanted = {}
    for file, system, given in product(files, systems, seeds):
        seed = 0 if system.name in BASELINES else given
        name = _recipe(digests[file], system, seed, epochs, splitting, runtime)
        wanted[folder / f"{name}.json", str(system)] = file, system, seed
    absent = {at: run for (at, _), run in wanted.items() if not _held(at)}
    run = partial(
        _one,
        runtime=runtime,
        epochs=epochs,
        splitting=splitting,
        digests=digests,
        code=code_version(),
    )
    total = len({at for at, _ in wanted})
    done = total - len(absent)
    progress("runs", done, total)

    def ended(system: System, seed: int) -> None:
        nonlocal done
        done += 1
        progress("runs", done, total, f"{system}, seed {seed}")

    if jobs == 1 or len(absent) < 2:
        for at, (file, system, seed) in absent.items():
            run(at, file, system, seed, progress=progress)
            ended(system, seed)
    else:
        threads = runtime.threads or max(1, (os.cpu_count() or 1) // jobs)
        _in_processes(partial(run, runtime=replace(runtime, threads=threads)), absent, jobs, ended)
    results = []
    for (at, name), (file, *_) in wanted.items():
        found = json.loads(at.read_text(encoding="utf-8"))
        results.append({**found, "system": name, "data": {**found["data"], "file": file.name}})
    with _replacing(folder / "results.parquet") as arriving:
        pq.write_table(_rows(results), arriving)
    text = rendered(results)
    with _replacing(folder / "tables.md") as arriving:
        arriving.write_text(text, encoding="utf-8")
    return text


def _held(at: Path) -> dict[str, Any] | None:
    """Return a result, or None where there is none, or one that a crash of the machine cut."""
    try:
        found: dict[str, Any] = json.loads(at.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found


@contextmanager
def _replacing(at: Path) -> Iterator[Path]:
    """Give a path that takes the place of ``at`` in the end, whole."""
    arriving = at.with_suffix(f".{os.getpid()}")
    try:
        yield arriving
        os.replace(arriving, at)
    finally:
        arriving.unlink(missing_ok=True)


def _in_processes(
    run: Callable[..., None],
    wanted: Mapping[Path, tuple[Path, System, int]],
    jobs: int,
    ended: Callable[[System, int], None],
) -> None:
    """Run what is wanted, so many at a time.

    No run begins after one failed or the caller was stopped, and those that are on end at once.
    """
    others = set(multiprocessing.active_children())
    waiting = iter(wanted.items())
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[None], tuple[System, int]] = {}
        try:
            while True:
                for at, (file, system, seed) in islice(waiting, jobs - len(running)):
                    running[pool.submit(run, at, file, system, seed)] = system, seed
                if not running:
                    return
                for each in wait(running, return_when=FIRST_COMPLETED).done:
                    named = running.pop(each)
                    each.result()
                    ended(*named)
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _one(
    at: Path,
    file: Path,
    system: System,
    seed: int,
    *,
    runtime: Runtime,
    epochs: int | None,
    splitting: Splitting,
    digests: Mapping[Path, str],
    code: str,
    progress: Progress = silent,
) -> None:
    found = benchmark(
        file,
        system,
        seed=seed,
        runtime=runtime,
        epochs=epochs,
        splitting=splitting,
        progress=progress,
    )
    for what, before, now in (
        (file, digests[file][:_SHOWN], found["data"]["digest"]),
        ("the code", code, found["code_version"]),
    ):
        if before != now:
            raise SourceError(f"{what} changed while the benchmark ran; start it again")
    text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False)
    with _replacing(at) as arriving:
        arriving.write_text(text + "\n", encoding="utf-8")


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


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{file} can't be read: {error.strerror}") from error


def _recipe(
    digest: str,
    system: System,
    seed: int,
    epochs: int | None,
    splitting: Splitting,
    runtime: Runtime,
) -> str:
    """Return a name for a run, another one wherever its outcome is meant to be another.

    The number of threads may change its last digits, and is left out: ``jobs`` decides it.
    """
    resolved = None
    if system.name in PRESETS:
        resolved = asdict(resolve(system.name, system.overrides))
    recipe = [code_version(), digest, system.name, resolved, seed, epochs, splitting]
    recipe += [runtime.torch_device.type, runtime.bf16, torch.__version__]
    told = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return f"{system.name}-{seed}-{told[:12]}"


def _rows(results: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return one row a run, split, slice, protocol and metric; lists are of the masked ranking."""
    rows = []
    for result in results:
        named = {name: result[name] for name in ("system", "seed", "splitting", "code_version")}
        named |= {"file": result["data"]["file"], "digest": result["data"]["digest"]}
        named |= {"settings": json.dumps(result["settings"])}
        named |= {"seconds": sum(result["seconds"].values())}
        named |= {"device": result["runtime"]["device"]}
        for split in ("validation", "test"):
            judged = result[split]
            for part in ({"name": "all", **judged}, *judged["slices"]):
                among = {**named, "split": split, "slice": part["name"], "users": part["users"]}
                rows += [{**among, **told} for told in _told(part)]
    return pa.Table.from_pylist(rows)


def _told(part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each metric of some users, with its interval where there is one."""
    for protocol in PROTOCOLS:
        spans = part.get("intervals", {}).get(protocol, {})
        for metric, value in part[protocol].items():
            low, high = spans.get(metric, (None, None))
            span = {"value": value, "low": low, "high": high}
            yield {"protocol": protocol, "metric": metric, **span}
    for metric, value in part.get("lists", {}).items():
        yield {"protocol": "masked", "metric": metric, "value": value}


def _require_whole(con: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Refuse rows without an id or a moment, and moments that are text and so lack an order."""
    counted = ", ".join(f"count(*) - count({name}) as {name}" for name in columns.REQUIRED)
    (nulls,) = con.sql(f"select {counted} from interactions").to_arrow_table().to_pylist()  # noqa: S608 - constants
    for name, missing in nulls.items():
        if missing:
            raise SourceError(f"{file}: {missing:,} rows have no {name}; leave them out")
    if type_family(column_types(con, "interactions")[columns.TIMESTAMP]) == "text":
        raise SourceError(f"{file}: timestamp is text; make it a timestamp or a number")


def _load(file: Path, splitting: Splitting) -> tuple[Split, dict[str, Any]]:
    if not file.is_file():
        raise SourceError(f"no file {file}")
    if splitting not in get_args(Splitting):
        raise ConfigurationError(
            f"no split {splitting!r}; there are {', '.join(get_args(Splitting))}"
        )
    named = ", ".join(columns.REQUIRED)
    with duckdb.connect() as con:
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
                counted = con.sql(load("benchmark/before"), params=shares).to_arrow_table()
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
    packed, split = numbered(packed, divided)
    data = {
        "file": file.name,
        "digest": _digest(file)[:_SHOWN],
        "users": len(packed.histories),
        "items": len(packed.items),
        "interactions": int(packed.histories.lengths.sum()),
    }
    return split, data
