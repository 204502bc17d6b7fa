"""Files x systems x seeds, each run once; the results as JSON, Parquet and Markdown."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recsys.benchmark.files import DIGEST_DIGITS, file_digest
from recsys.benchmark.results import BenchmarkResult
from recsys.benchmark.run import BASELINES, System, benchmark
from recsys.benchmark.tables import rendered
from recsys.errors import SourceError
from recsys.evaluation.results import PROTOCOLS, SPLITS
from recsys.lake.engine import Limits
from recsys.model.presets import PRESETS, resolve
from recsys.progress import Progress, silent
from recsys.temporary import replace_file
from recsys.version import code_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from recsys.evaluation.results import EvaluationReport, Slice
    from recsys.model.runtime import Runtime
    from recsys.settings import Splitting


_LIMITS = Limits()


@dataclass(frozen=True)
class _Run:
    """One run of the matrix."""

    file: Path
    system: System
    seed: int


def matrix(
    files: Sequence[Path],
    systems: Sequence[System],
    seeds: Sequence[int],
    folder: Path,
    *,
    runtime: Runtime,
    splitting: Splitting = "leave-one-out",
    jobs: int = 1,
    limits: Limits = _LIMITS,
    progress: Progress = silent,
) -> str:
    """Run every file x system x seed that ``folder`` does not hold yet; return the tables.

    Each run's JSON is written as it ends, so that a matrix that was stopped goes on where it was;
    another file, other settings, another device, precision, torch or code make another run. Then
    ``results.parquet`` (one row a run, split, slice, protocol and metric) and ``tables.md`` follow.
    Baselines have no seed, and run once; so do systems of two names and the same settings.

    Args:
        files: see `benchmark`.
        systems: likewise.
        seeds: of the presets.
        folder: where results go.
        runtime: device, threads and precision of each run; with ``jobs``, cores are shared out.
        splitting: see `benchmark`.
        jobs: runs at a time, each in a process of its own and with a model of its own in memory.
        limits: see `benchmark`.
        progress: called as runs end.

    Raises:
        ConfigurationError, GateError: see `benchmark`; results so far are kept.
        SourceError: likewise, or a file or the code changed while it was run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests = {file: file_digest(file) for file in files}
    runs = {}
    for file, system, seed in product(files, systems, seeds):
        run = _Run(file, system, 0 if system.name in BASELINES else seed)
        name = _recipe(digests[file], system, run.seed, splitting, runtime)
        runs[folder / f"{name}.json", str(system)] = run
    absent = {path: run for (path, _), run in runs.items() if not _result(path)}
    ended = _RunCounter(progress, len({path for path, _ in runs}), len(absent))
    execute = partial(_execute, splitting=splitting, limits=limits)
    execute = partial(execute, digests=digests, code=code_version())
    if jobs == 1 or len(absent) < 2:
        for path, run in absent.items():
            execute(path, run, runtime=runtime, progress=progress)
            ended(run)
    else:
        threads = runtime.threads or max(1, (os.cpu_count() or 1) // jobs)
        in_process = partial(execute, runtime=replace(runtime, threads=threads))
        _in_processes(in_process, absent, jobs, ended)
    return _write_tables(folder, runs)


class _RunCounter:
    """Reports how many runs of the matrix are done, the ones of an earlier call among them."""

    def __init__(self, progress: Progress, total: int, absent: int) -> None:
        self._progress, self._total, self._done = progress, total, total - absent
        progress("runs", self._done, total)

    def __call__(self, run: _Run) -> None:
        self._done += 1
        self._progress("runs", self._done, self._total, f"{run.system}, seed {run.seed}")


def _write_tables(folder: Path, runs: Mapping[tuple[Path, str], _Run]) -> str:
    """Write ``results.parquet`` and ``tables.md`` of the runs' files; return the latter."""
    results = []
    for (path, system), run in runs.items():
        result = _result(path)
        if result is None:
            raise SourceError(
                f"{path} was removed or damaged while the benchmark ran; run it again"
            )
        data = replace(result.data, file=run.file.name)
        results.append(replace(result, system=system, data=data))
    with replace_file(folder / "results.parquet") as new:
        pq.write_table(_rows(results), new)
    text = rendered(results)
    with replace_file(folder / "tables.md") as new:
        new.write_text(text, encoding="utf-8")
    return text


def _result(path: Path) -> BenchmarkResult | None:
    """Return a run's result, or None where there is none, or one that a crash cut short."""
    try:
        return BenchmarkResult.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def _in_processes(
    execute: Callable[[Path, _Run], None],
    runs: Mapping[Path, _Run],
    jobs: int,
    run_ended: Callable[[_Run], None],
) -> None:
    """Execute the runs, so many at a time.

    No run begins after one failed or the caller was stopped, and those that are on end at once.
    """
    others = set(multiprocessing.active_children())
    waiting = iter(runs.items())
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[None], _Run] = {}
        try:
            while True:
                for path, run in islice(waiting, jobs - len(running)):
                    running[pool.submit(execute, path, run)] = run
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    run = running.pop(future)
                    future.result()
                    run_ended(run)
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _execute(
    path: Path,
    run: _Run,
    *,
    runtime: Runtime,
    splitting: Splitting,
    digests: Mapping[Path, str],
    code: str,
    limits: Limits,
    progress: Progress = silent,
) -> None:
    """Execute one run and write its result to ``path``."""
    result = benchmark(
        run.file,
        run.system,
        seed=run.seed,
        runtime=runtime,
        splitting=splitting,
        limits=limits,
        progress=progress,
    )
    for what, before, now in (
        (run.file, digests[run.file][:DIGEST_DIGITS], result.data.digest),
        ("the code", code, result.code_version),
    ):
        if before != now:
            raise SourceError(f"{what} changed while the benchmark ran; start it again")
    text = json.dumps(result.to_dict(), indent=2, sort_keys=True, ensure_ascii=False)
    with replace_file(path) as new:
        new.write_text(text + "\n", encoding="utf-8")


def _recipe(
    digest: str,
    system: System,
    seed: int,
    splitting: Splitting,
    runtime: Runtime,
) -> str:
    """Return a name for a run, another one wherever its outcome is meant to be another.

    The number of threads may change its last digits, and is left out: ``jobs`` decides it.
    """
    resolved = None
    if system.name in PRESETS:
        resolved = asdict(resolve(system.name, system.overrides))
    recipe = [code_version(), digest, system.name, resolved, seed, splitting]
    recipe += [runtime.torch_device.type, runtime.bf16, torch.__version__]
    hashed = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return f"{system.name}-{seed}-{hashed[:12]}"


def _rows(results: Sequence[BenchmarkResult]) -> pa.Table:
    """Return one row a run, split, slice, protocol and metric; lists are of the masked ranking."""
    rows = []
    for result in results:
        of_run = {
            "system": result.system,
            "seed": result.seed,
            "splitting": result.splitting,
            "code_version": result.code_version,
            "file": result.data.file,
            "digest": result.data.digest,
            "settings": json.dumps(result.settings),
            "seconds": result.seconds.total,
            "device": result.runtime.device,
        }
        for split in SPLITS:
            report = result.on(split)
            whole = {**of_run, "split": split, "slice": "all", "users": report.users}
            rows += [{**whole, **row} for row in _metric_rows(report, report.intervals)]
            rows += [
                {**whole, "protocol": "masked", "metric": name, "value": value}
                for name, value in report.lists.items()
            ]
            for part in report.slices:
                of_part = {**whole, "slice": part.name, "users": part.users}
                rows += [{**of_part, **row} for row in _metric_rows(part, {})]
    return pa.Table.from_pylist(rows)


def _metric_rows(
    part: EvaluationReport | Slice, intervals: Mapping[str, Mapping[str, list[float]]]
) -> Iterator[dict[str, Any]]:
    """Yield each metric of some users, with its interval where there is one."""
    for protocol in PROTOCOLS:
        ends = intervals.get(protocol, {})
        for metric, value in part.metrics(protocol).items():
            low, high = ends.get(metric, (None, None))
            row = {"protocol": protocol, "metric": metric}
            yield {**row, "value": value, "low": low, "high": high}
