"""How a night grows with the number of users: seconds and peak memory of each stage, by size.

Every stage runs in a process of its own, on the lake that those before it made of synthetic
interactions. A training grows with the catalogue, so that it is measured by the number of items:
seconds of an epoch of a million interactions. ``make bench-scale USERS=10000,100000`` writes
``build/bench-scale.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

Figures = dict[str, float]

# What makes up a night: packing is part of recommending, and training is not nightly.
NIGHT = ("ingest", "recommend", "publish")
_ROWS = 5_000_000  # generated at a time
_START, _DAY = 1_735_689_600_000_000, 86_400_000_000  # of 2025, and a day, in microseconds
_SAMPLE = 64  # users that the model is trained on: it has to be a model, not a good one
_READS = 20
_NEGATIVES = 1024
_GROWING = ("seconds", "peak_rss_gb")


def generate(args: argparse.Namespace) -> Figures:
    """Write one Parquet file a day, in time order: Zipf items, log-normal histories."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(args.seed)
    # The logarithm's deviation is 0.5; less half its square, so that the mean is what was asked.
    drawn = random.lognormal(np.log(args.interactions) - 0.125, 0.5, args.users)
    lengths = np.maximum(3, drawn.round()).astype(np.int64)
    share = np.cumsum(1 / np.arange(1, args.items + 1))
    share /= share[-1]
    item_of_rank = random.permutation(args.items).astype(np.int64)
    days = -(-int(lengths.sum()) // _ROWS)
    args.source.mkdir()
    for day in range(days):
        today = lengths * (day + 1) // days - lengths * day // days
        count = int(today.sum())
        order = random.permutation(count)
        moment = np.sort(random.integers(_DAY, size=count)) + _START + day * _DAY
        rank = np.searchsorted(share, random.random(count))
        user_id = np.repeat(np.arange(args.users), today)[order]
        rows = {"user_id": user_id, "item_id": item_of_rank[rank]}
        rows["timestamp"] = pa.array(moment, pa.timestamp("us", "UTC"))
        pq.write_table(pa.table(rows), args.source / f"day-{day:03}.parquet")
    return {"interactions": float(lengths.sum())}


def ingest(args: argparse.Namespace) -> Figures:
    """Take all files as one batch, through every check."""
    import great_expectations  # noqa: F401 - seconds of import, once a process and at any size

    from recsys.ingest.batch import ingest as take
    from recsys.settings import Source

    lake, settings = _lake(args)
    source = Source(uri=str(args.source / "*.parquet"))
    figures, result = _timed(lambda: take(lake, settings, source))
    return {**figures, "rows": float(result.accepted)}


def train(args: argparse.Namespace) -> Figures:
    """Train for a moment on a few users, over all items, and make it the champion."""
    import pyarrow as pa

    from recsys.histories import ItemIds
    from recsys.lake.engine import open_duckdb
    from recsys.lake.packing import pack
    from recsys.model.presets import resolve
    from recsys.model.runtime import Runtime
    from recsys.registry.models import save_model
    from recsys.registry.promote import register_model
    from recsys.training.trainer import fit
    from tests import lakes

    lake, settings = _lake(args)
    with open_duckdb(settings) as con:
        lake.view(con, "interactions", name="everyone")
        con.execute(f"create temp table interactions as from everyone where user_id < {_SAMPLE}")
        packed = pack(con, ItemIds(pa.array(np.arange(args.items))))

    def run() -> None:
        some, how = (
            packed.histories,
            {"seed": args.seed, "runtime": Runtime(settings.device, settings.threads)},
        )
        fitted = fit(some, args.items, resolve("best", {}), validate=None, epochs=1, **how)
        save_model(lake, "m-scale", fitted.model, packed.items, {}, "")
        register_model(lake, lakes.model_row("m-scale", trained_at=datetime.now(UTC)))

    return _timed(run)[0]


def pack(args: argparse.Namespace) -> Figures:
    """Pack every history, on its own."""
    from recsys.lake.engine import open_duckdb
    from recsys.lake.packing import pack as packed

    lake, settings = _lake(args)
    with open_duckdb(settings) as con:
        lake.view(con, "interactions")
        return _timed(partial(packed, con))[0]


def recommend(args: argparse.Namespace) -> Figures:
    """Make, check and publish every list; the model's own seconds apart."""
    from recsys.lists import ranking as made
    from recsys.lists import recommend as nightly
    from recsys.model.scoring import TopK
    from recsys.settings import Recommending

    lake, settings = _lake(args)
    scored, spent = vars(made)["top_k"], 0.0

    def watched(*given: Any, **named: Any) -> Iterator[TopK]:
        nonlocal spent
        blocks = scored(*given, **named)
        while True:
            taken, block = _timed(lambda: next(blocks, None))
            spent += taken["seconds"]
            if block is None:
                return
            yield block

    wanted, run_date = Recommending(k=args.k), settings.run_date()
    run = partial(nightly.recommend, lake, settings, wanted, run_date=run_date, run_id="scale")
    with patch.object(made, "top_k", watched):
        figures, result = _timed(run)
    rest = figures["seconds"] - spent
    return {**figures, "model": spent, "rest": rest, "rows": float(result.rows)}


def publish(args: argparse.Namespace) -> Figures:
    """Copy the lists into the catalog; then how long one user's list takes to read, in seconds."""
    import duckdb

    from recsys.catalog.publish import publish_catalog
    from recsys.catalog.query import CATALOG_FILE

    lake, _ = _lake(args)
    figures, _ = _timed(lambda: publish_catalog(lake))
    ask = "select item_id from latest_recommendations where user_id = ? order by rank"
    with duckdb.connect(lake.uri(CATALOG_FILE), read_only=True) as con:
        users = range(0, args.users, max(1, args.users // _READS))
        reads = [_timed(lambda u=user: con.execute(ask, [u]).fetchall()) for user in users]
    median = float(np.median([reading["seconds"] for reading, _ in reads]))
    return {**figures, "read": median, "rows": float(len(reads[0][1]))}


def fit(args: argparse.Namespace) -> Figures:
    """Train `best` for two epochs of a few interactions, over all items, and time the second.

    Seconds are those of an epoch of a million interactions, without validation.
    """
    from recsys.histories import Histories
    from recsys.model.presets import resolve
    from recsys.model.runtime import Runtime
    from recsys.training.trainer import fit as trained

    random = np.random.default_rng(args.seed)
    share = np.cumsum(1 / np.arange(1, args.items + 1))
    rank = np.searchsorted(share, random.random(_SAMPLE * args.interactions * 4) * share[-1])
    offsets = np.arange(0, len(rank) + 1, args.interactions, dtype=np.int64)
    some = Histories.from_offsets(rank.astype(np.int32) + 1, offsets)
    preset, runtime = resolve("best", {"negatives": args.negatives}), Runtime("auto")
    how = {"seed": args.seed, "runtime": runtime, "validate": None, "epochs": 2}
    log = trained(some, args.items, preset, **how).log
    return {"seconds": log[-1].seconds / len(rank) * 1e6}


STAGES: dict[str, Callable[[argparse.Namespace], Figures]] = {
    stage.__name__: stage for stage in (generate, ingest, train, pack, recommend, publish, fit)
}
OF_USERS = list(STAGES)[:-1]
MEASURED = (*OF_USERS[1:], "night")


def _lake(args: argparse.Namespace) -> tuple[Any, Any]:
    from recsys.lake.tables import Lake
    from recsys.settings import Settings

    settings = Settings(lake=str(args.folder / "lake"))
    return Lake.from_settings(settings), settings


def _timed(work: Callable[[], Any]) -> tuple[Figures, Any]:
    began = time.perf_counter()
    result = work()
    return {"seconds": time.perf_counter() - began}, result


def exponents(sizes: list[dict[str, Any]]) -> dict[str, Figures]:
    """Return the slope of log(figure) against log(interactions), for each stage and the night."""
    across = np.log([size["interactions"] for size in sizes])

    def slope(stage: str, figure: str) -> float:
        return float(np.polyfit(across, np.log([at[stage][figure] for at in sizes]), 1)[0])

    return {stage: {name: slope(stage, name) for name in _GROWING} for stage in MEASURED}


def run_alone(arguments: list[str]) -> Figures:
    """Run one stage in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_here(arguments: list[str]) -> Figures:
    """Run one stage in this process."""
    args = _parser().parse_args(arguments)
    if args.folder:  # of the stages that have a lake
        args.users, args.source = int(args.users), args.folder / "source"
    figures = STAGES[args.stage](args)
    figures["peak_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {name: round(value, 4) for name, value in figures.items()}


def _measure(
    users: int, setup: dict[str, int], folder: Path, run: Callable[[list[str]], Figures]
) -> dict[str, Any]:
    """Run every stage at one size."""
    size: dict[str, Any] = {"users": users}
    given = [f"--{name}={value}" for name, value in setup.items()]
    for stage in OF_USERS:
        size[stage] = run(
            ["--stage", stage, "--folder", str(folder), "--users", str(users), *given]
        )
        print(f"{users:>9,} users  {stage:<10}{json.dumps(size[stage])}", flush=True)
    size["interactions"] = size["generate"].pop("interactions")
    seconds, peaks = zip(*([size[at][name] for name in _GROWING] for at in NIGHT), strict=True)
    return {**size, "night": dict(zip(_GROWING, (sum(seconds), max(peaks)), strict=True))}


def _measure_training(
    catalogues: str, setup: dict[str, int], run: Callable[[list[str]], Figures]
) -> list[dict[str, float]]:
    """Run the stage ``fit`` at each number of items, with and without sampled negatives."""
    measured = []
    for items in map(int, catalogues.split(",")):
        for negatives in (0, _NEGATIVES):
            size = {**setup, "items": items, "negatives": negatives}
            given = [f"--{name}={value}" for name, value in size.items()]
            found = {"items": items, "negatives": negatives, **run(["--stage", "fit", *given])}
            print(f"{items:>9,} items  fit       {json.dumps(found)}", flush=True)
            measured.append(found)
    return measured


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", default="10000,100000,1000000", help="sizes, with commas")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--catalogues", default="10000,100000,1000000", help="items of a training")
    parser.add_argument("--negatives", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--interactions", type=int, default=100, help="of a user, on average")
    parser.add_argument("--k", type=int, default=100, help="items of a list")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/bench-scale.json"))
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the data lie while it runs")
    return parser


def main(given: list[str] | None = None, run: Callable[[list[str]], Figures] = run_alone) -> None:
    """Measure all sizes, or one stage of one size (in a process of its own)."""
    arguments = sys.argv[1:] if given is None else given
    args = _parser().parse_args(arguments)
    if args.stage:
        print(json.dumps(run_here(arguments)))
        return
    setup = {name: getattr(args, name) for name in ("items", "interactions", "k", "seed")}
    sizes = []
    for users in map(int, args.users.split(",")):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            sizes.append(_measure(users, setup, Path(folder), run))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "memory_gb": memory}
    result = {
        "machine": {**machine, "python": platform.python_version()},
        "setup": setup,
        "sizes": sizes,
        "exponents": exponents(sizes) if len(sizes) > 1 else {},
        "training": _measure_training(args.catalogues, setup, run),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{table(result)}\nwritten to {args.out}")


def table(result: dict[str, Any]) -> str:
    """Return a line per stage: seconds and peak GB at each size, and how both grow."""
    lines = [" " * 10 + "".join(f"{at['users']:>15,} users" for at in result["sizes"])]
    for stage in MEASURED:
        found = ([size[stage][name] for name in _GROWING] for size in result["sizes"])
        cells = "".join(f"{seconds:>10.1f} s {peak:>5.2f} GB" for seconds, peak in found)
        slopes = result["exponents"].get(stage, {}).values()
        lines.append(f"{stage:<10}{cells}   {' '.join(f'{slope:.2f}' for slope in slopes)}")
    lines.append("\nan epoch of a million interactions, without validation")
    for at in result["training"]:
        negatives = f"{at['negatives']:,} negatives" if at["negatives"] else "all items"
        cells = f"{at['seconds']:>10.1f} s {at['peak_rss_gb']:>5.2f} GB"
        lines.append(f"{at['items']:>10,} items, {negatives:<16}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
