"""A night's lists on one machine, beside 1, 2 and 4 nodes of a Ray cluster: `make bench-ray`.

The nodes are processes of this machine with one CPU each, so that more of them than it has cores
bring nothing. Told are the seconds of a night's lists from start to end, the peak memory of the
process that publishes them and of the largest that makes some, and whether the lists are the same.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import psutil
import pyarrow.compute as pc

from recsys import columns
from recsys.distributed.shards_on_ray import strategy
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.settings import Scale, Settings
from tests.benchmarks import scale

K = 20
_MAKER = "ray::_make_one"


@dataclass
class Peaks:
    """Peak memory, in GB, of this process and of the largest of Ray's that makes lists."""

    here: float = 0.0
    there: float = 0.0


@contextmanager
def watched() -> Iterator[Peaks]:
    """Look at the memory of the processes ten times a second."""
    peaks, done = Peaks(), Event()

    def watch() -> None:
        while not done.wait(0.1):
            peaks.here = max(peaks.here, psutil.Process().memory_info().rss / 1e9)
            for process in psutil.process_iter(["cmdline", "memory_info"]):
                if process.info["cmdline"] and process.info["cmdline"][0].startswith(_MAKER):
                    peaks.there = max(peaks.there, process.info["memory_info"].rss / 1e9)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """Run so many nodes of Ray with one CPU each; give their address."""
    from ray.cluster_utils import Cluster

    made = Cluster()
    made.add_node(num_cpus=0, include_dashboard=False)
    for _ in range(nodes):
        made.add_node(num_cpus=1)
    try:
        yield made.address
    finally:
        made.shutdown()  # type: ignore[no-untyped-call]


def night(lake: Lake, settings: Settings) -> tuple[float, Peaks, int]:
    """Make the lists once; return seconds, peaks and a hash of the lists."""
    if lake.rows(columns.EDITIONS).num_rows:
        lake.delete(columns.RECOMMENDATIONS, "rank > 0")  # or the lists stand, unchanged
    with watched() as peaks:
        began = time.perf_counter()
        recommend(
            lake,
            settings,
            settings.recommending.changed({"k": K, "explained_users": 0}),
            run_date=settings.run_date(),
            run_id="bench",
            replace_why="a benchmark",
            make_shards=strategy(settings),
        )
        seconds = time.perf_counter() - began
    newest = pc.max(lake.rows(columns.EDITIONS)["edition"]).as_py()
    rows = lake.rows(columns.RECOMMENDATIONS).filter(pc.field("edition") == newest)
    kept = rows.select(["user_id", "rank", "item_id", "score"]).sort_by(
        [("user_id", "ascending"), ("rank", "ascending")]
    )
    return seconds, peaks, hash(tuple(map(str, kept.to_pydict().values())))


def main() -> None:
    """Make the data, then the lists in each way; print a line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--interactions", type=int, default=50, help="of a user, on average")
    parser.add_argument("--nodes", default="1,2,4")
    parser.add_argument("--shards", type=int, default=8)
    args = parser.parse_args()
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        given = [f"--{name}={getattr(args, name)}" for name in ("users", "items", "interactions")]
        for stage in ("generate", "ingest", "train"):
            scale.run_alone(["--stage", stage, "--folder", folder, *given])
        settings = Settings(lake=str(Path(folder, "lake")), threads=1)
        lake = Lake.from_settings(settings)
        whole, *_ = told = [("one machine, one thread", night(lake, settings))]
        cut = settings.model_copy(update={"scale": Scale(shards=args.shards)})
        told.append((f"the same in {args.shards} shards", night(lake, cut)))
        for nodes in map(int, args.nodes.split(",")):
            with cluster(nodes) as address:
                asked = Scale(engine="ray", shards=args.shards, ray_address=address)
                on_ray = settings.model_copy(update={"scale": asked})
                told.append((f"{nodes} nodes of Ray", night(lake, on_ray)))
        for name, (seconds, peaks, lists) in told:
            print(
                f"{name:<28}{seconds:>8.1f} s, ratio {whole[1][0] / seconds:.2f}; "
                f"here {peaks.here:.2f} GB, there {peaks.there:.2f} GB; "
                f"{'the same lists' if lists == whole[1][2] else 'OTHER LISTS'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
