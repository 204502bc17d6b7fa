"""Files x systems x seeds, each run once; the results as JSON, Parquet and Markdown."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from functools import partial
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recsys.benchmark.run import BASELINES, SHOWN, System, benchmark, file_digest
from recsys.benchmark.tables import rendered
from recsys.errors import SourceError
from recsys.evaluation.protocol import PROTOCOLS
from recsys.lake.engine import Limits
from recsys.model.presets import PRESETS, resolve
from recsys.progress import Progress, silent
from recsys.temporary import replace_file
from recsys.version import code_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from recsys.benchmark.run import Splitting
    from recsys.model.runtime import Runtime


_LIMITS = Limits()


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
    limits: Limits = _LIMITS,
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
        limits: see `benchmark`.
        progress: told as runs end.

    Raises:
        ConfigurationError, GateError: see `benchmark`; results so far are kept.
        SourceError: likewise, or a file or the code changed while it was run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests = {file: file_digest(file) for file in files}
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
        limits=limits,
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
    with replace_file(folder / "results.parquet") as arriving:
        pq.write_table(_rows(results), arriving)
    text = rendered(results)
    with replace_file(folder / "tables.md") as arriving:
        arriving.write_text(text, encoding="utf-8")
    return text


def _held(at: Path) -> dict[str, Any] | None:
    """Return a result, or None where there is none, or one that a crash of the machine cut."""
    try:
        found: dict[str, Any] = json.loads(at.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found


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
    limits: Limits,
    progress: Progress = silent,
) -> None:
    found = benchmark(
        file,
        system,
        seed=seed,
        runtime=runtime,
        epochs=epochs,
        splitting=splitting,
        limits=limits,
        progress=progress,
    )
    for what, before, now in (
        (file, digests[file][:SHOWN], found["data"]["digest"]),
        ("the code", code, found["code_version"]),
    ):
        if before != now:
            raise SourceError(f"{what} changed while the benchmark ran; start it again")
    text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False)
    with replace_file(at) as arriving:
        arriving.write_text(text + "\n", encoding="utf-8")


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
