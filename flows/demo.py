"""What `make demo` runs: a whole night on MovieLens-100K, then its lists read with SQL."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from recsys.catalog.query import CATALOG_FILE
from recsys.catalog.report.files import report_address
from recsys.lake.tables import Lake
from recsys.operations.summary import night_summary, sample_lists
from recsys.settings import Settings
from recsys.terminal import print_line

if TYPE_CHECKING:
    from pathlib import Path


def run_demo(folder: Path) -> None:
    """Download MovieLens-100K, run the flow `nightly` on it, and print what it made.

    Args:
        folder: holds the source, the lake and Prefect's files afterwards.

    Raises:
        RecsysError: the data can't be downloaded, or a step of the night was refused.
    """
    started = time.perf_counter()
    from flows.server import start_temporary_server
    from recsys.benchmark.datasets import movielens_100k

    source = movielens_100k(folder / "source.duckdb", say=print_line)
    root = folder / "lake"
    _configure(source, root, folder)
    start_temporary_server()
    print_line("running the flow `nightly` (a temporary Prefect server takes a moment to start)")
    from flows.nightly import nightly_flow

    nightly_flow(train="always")
    lake = Lake.from_settings(Settings())
    for text in (night_summary(lake), *sample_lists(lake)):
        print_line(f"\n{text}")
    print_line(f"\nThe lake: {root}, read with SQL through {root / CATALOG_FILE}")
    print_line(f"The report on the night, for a browser: {report_address(lake)}")
    print_line(f"\nThe whole demo took {time.perf_counter() - started:.0f} s. To go on:")
    for command in (
        f"recsys --lake {root} sql user_list --param user_id=42",
        f"recsys --lake {root} sql item_exposure",
        f"recsys --lake {root} train --set seed=1",
    ):
        print_line(f"  .venv/bin/{command}")


def _configure(source: Path, root: Path, folder: Path) -> None:
    """Set source, lake and Prefect for this process, whatever the user has configured."""
    ratings = {"item_id": "movie_id", "timestamp": "rated_at", "value": "rating"}
    movies = {"item_id": "movie_id", "category": "genres"}
    uri = str(source)
    os.environ |= {
        "RECSYS_LAKE": str(root),
        "RECSYS_SOURCE": json.dumps({"uri": uri, "table": "ratings", "columns": ratings}),
        "RECSYS_ITEMS": json.dumps({"uri": uri, "table": "movies", "columns": movies}),
    }
    Settings.model_config["toml_file"] = None  # whatever lies in the working directory
    os.environ.pop("PREFECT_API_URL", None)  # a temporary server, whatever is configured here
    os.environ.setdefault("PREFECT_HOME", str((folder / "prefect").absolute()))
