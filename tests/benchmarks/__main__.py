"""`make bench`: ours against a reference on one machine, every measure in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.common import Setup, Sizes

ROOT = Path(__file__).parents[2]
SPEED = "rate"
ROOFS = {
    "bf16": "the fastest bf16 matrix product measured",
    "fp32": "the fastest fp32 matrix product measured",
    "copy": "the memory copy measured, bytes read and written",
}
_SAY = Console(stderr=True, highlight=False)

Result = dict[str, Any]
Measure = Callable[[str, str], Result]  # name of a measure and the run's folder -> its result


@dataclass(frozen=True)
class Stage:
    """A line of the table: two measures (module:function) and the figure they are compared by."""

    name: str
    unit: str
    ours: str
    reference: str
    figure: str = SPEED


_SERVED, _RANKED = "model:serve_reference", "model:quality_reference"
STAGES = (
    Stage("training, prefix", "samples/s", "model:train_prefix", "model:train_reference"),
    Stage("training, one pass", "targets/s", "model:train_one_pass", "model:train_reference"),
    Stage("inference, 32 steps", "users/s", "model:serve_diffurec_32", _SERVED),
    Stage("inference, 1 step", "users/s", "model:serve_diffurec_1", _SERVED),
    Stage("inference, best", "users/s", "model:serve_best", _SERVED),
    Stage("masked test, 32 steps", "NDCG@10", "model:quality_32", _RANKED, "masked"),
    Stage("masked test, 1 step", "NDCG@10", "model:quality_1", _RANKED, "masked"),
    Stage("unmasked test, 32 steps", "NDCG@10", "model:quality_32", _RANKED, "unmasked"),
    Stage("unmasked test, 1 step", "NDCG@10", "model:quality_1", _RANKED, "unmasked"),
    Stage("source to lake", "rows/s", "data:ingest_ours", "data:ingest_reference"),
    Stage("packing histories", "rows/s", "data:pack_ours", "data:pack_reference"),
    Stage("top-20 of a catalogue", "scores/s", "model:choose_ours", "model:choose_reference"),
    Stage("commit of lists", "rows/s", "data:commit_ours", "data:commit_reference"),
)


class StageError(Exception):
    """A measure failed."""


def run_alone(name: str, folder: str) -> Result:
    """Run one measure in a process of its own and return its result."""
    began = time.perf_counter()
    environment = {key: at for key, at in os.environ.items() if not key.startswith("RECSYS_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.one", name, folder],
        cwd=folder,  # where no recsys.toml is
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StageError(f"{name} failed ({done.returncode}):\n{done.stderr.strip()}")
    _SAY.print(f"{name:<26}{time.perf_counter() - began:6.1f} s")
    found: Result = json.loads((Path(folder) / "result.json").read_text())
    return found


def bench(
    data: str | None, device: str, sizes: Sizes, cache: Path, measure: Measure = run_alone
) -> Result:
    """Run every stage; return what ``build/bench.json`` holds.

    Raises:
        StageError: a measure failed; there are no figures then.
    """
    taken: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        setup = asdict(Setup(folder, data, str(cache), device, sizes))
        (Path(folder) / "setup.json").write_text(json.dumps(setup))
        described = measure("data:prepare", folder)["figures"]
        can = measure("machine:rates", folder)["figures"]
        measure("model:prepare", folder)
        for reference in dict.fromkeys(stage.reference for stage in STAGES):
            compared = [stage for stage in STAGES if stage.reference == reference]
            by_turns = dict.fromkeys([*(stage.ours for stage in compared), reference])
            # Quality is the same every time: its noise has a seed.
            for _ in range(sizes.rounds if compared[0].figure == SPEED else 1):
                for name in by_turns:
                    taken.setdefault(name, []).append(measure(name, folder))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": can.pop("machine"),
        "rates": can,
        "data": described,
        "sizes": asdict(sizes),
        "stages": [
            _line(stage, taken[stage.ours], taken[stage.reference], can) for stage in STAGES
        ],
    }


def _line(stage: Stage, ours: list[Result], reference: list[Result], can: Result) -> Result:
    """Compare the best round of either side."""
    rounds = {
        side: [run["figures"][stage.figure] for run in runs]
        for side, runs in (("ours", ours), ("reference", reference))
    }
    figure, against = max(rounds["ours"]), max(rounds["reference"])
    needs, kind = ours[0]["needs"], ours[0]["kind"]
    return {
        "stage": stage.name,
        "unit": stage.unit,
        "ours": figure,
        "reference": against,
        "ratio": figure / against if against else None,
        "peak_rss_mb": max(run["peak_rss_mb"] for run in ours),
        "reference_peak_rss_mb": max(run["peak_rss_mb"] for run in reference),
        "roofline_share": figure * needs / can[kind] if stage.figure == SPEED else None,
        "roofline_of": ROOFS[kind] if stage.figure == SPEED else None,
        "rounds": rounds,
    }


def table(report: Result) -> Table:
    """Return the report as a table under a heading that says where it was made."""
    machine, data, can = report["machine"], report["data"], report["rates"]
    shown = Table(
        title=f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores, "
        f"{machine['precision']}, torch {machine['torch']}, {machine['threads']} threads\n"
        f"{data['name']}: {data['users']:,} users, {data['items']:,} items, "
        f"{data['interactions']:,} interactions\n"
        f"roofline: bf16 {can['bf16'] / 1e9:,.0f} GFLOP/s, fp32 {can['fp32'] / 1e9:,.0f} GFLOP/s, "
        f"copy {can['copy'] / 1e9:,.1f} GB/s",
        title_justify="left",
    )
    for at, name in enumerate(("stage", "unit", "ours", "reference", "ratio", "MB", "roofline")):
        shown.add_column(name, justify="left" if at < 2 else "right")
    kinds = {said: kind for kind, said in ROOFS.items()}
    for line in report["stages"]:
        digits = ".4f" if line["unit"] == "NDCG@10" else ",.0f"
        of = line["roofline_of"]
        shown.add_row(
            line["stage"],
            line["unit"],
            format(line["ours"], digits),
            format(line["reference"], digits),
            "" if line["ratio"] is None else f"{line['ratio']:,.2f}",
            f"{line['peak_rss_mb']:,.0f} / {line['reference_peak_rss_mb']:,.0f}",
            "" if of is None else f"{line['roofline_share']:.1%} {kinds[of]}",
        )
    return shown


def main(arguments: list[str] | None = None, measure: Measure = run_alone) -> None:
    """Read arguments, measure, show, write."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--data", help="Parquet of user_id, item_id, timestamp")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, or cuda:1")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name}", type=type(size.default), default=size.default)
    given = parser.parse_args(arguments)
    if given.data and not Path(given.data).is_file():
        parser.error(f"no file {given.data}")
    data, out = given.data and str(Path(given.data).absolute()), given.out.absolute()
    sizes = Sizes(**{size.name: getattr(given, size.name) for size in fields(Sizes)})
    began = time.perf_counter()
    try:
        cache = out.parent / "movielens-100k.duckdb"
        report = bench(data, given.device, sizes, cache, measure)
    except StageError as error:
        sys.exit(str(error))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    Console(width=None if sys.stdout.isatty() else 120).print(table(report))
    _SAY.print(f"{time.perf_counter() - began:.0f} s in all; {out}")


if __name__ == "__main__":
    main()
