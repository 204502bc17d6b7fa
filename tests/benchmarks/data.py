"""Measures of the data side: ingest, packing, commit. Torch stays out of these processes."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns
from recsys.benchmark.datasets import movielens_100k
from recsys.histories import Packed
from recsys.ingest.batch import ingest
from recsys.lake.engine import open_duckdb
from recsys.lake.packing import pack
from recsys.lake.schemas import schemas
from recsys.lake.tables import Lake
from recsys.settings import Settings, Source
from sql import literal
from tests.benchmarks.common import Measured, Setup, rate

_DAY = "2026-01-01"
_LISTS = schemas(pa.int64(), pa.int64())[columns.RECOMMENDATIONS]
_INTERACTION = 3 * 8  # bytes of user, item and moment
_RECOMMENDATION = 8 + 4 + 8 + 4  # bytes of user, rank, item and score; the rest is constant


def prepare(setup: Setup) -> Measured:
    """Write what the other measures read: packed histories, synthetic rows, staged lists."""
    folder, sizes = Path(setup.folder), setup.sizes
    packed = _packed(setup, setup.data or _movielens(setup))
    held = packed.histories
    np.savez(folder / "histories.npz", items=held.items, starts=held.starts, ends=held.ends)
    for name, rows in (("rows", sizes.rows), ("fewer", sizes.reference_rows), ("few", 1000)):
        _write_interactions(folder / f"{name}.parquet", rows)
    _write_lists(folder / "lists.parquet", sizes.rows)
    return Measured(
        {
            "name": Path(setup.data).name if setup.data else "MovieLens-100K",
            "users": len(packed.users),
            "items": len(packed.items),
            "interactions": len(held.items),
        }
    )


def ingest_ours(setup: Setup) -> Measured:
    """Take a Parquet file into a fresh lake, checked; the imports come before the clock."""
    lakes = count()

    def take(file: str) -> int:
        settings = Settings(lake=f"{setup.folder}/lake-{next(lakes)}")
        return ingest(
            Lake.from_settings(settings), settings, Source(uri=f"{setup.folder}/{file}")
        ).accepted

    figures = rate(lambda: take("rows.parquet"), setup.sizes.seconds, lambda: take("few.parquet"))
    return Measured(figures, 2 * _INTERACTION)


def ingest_reference(setup: Setup) -> Measured:
    """The plain route: a frame in memory, one file out; no contract, no quarantine, no commit."""

    def take() -> int:
        frame = pd.read_parquet(f"{setup.folder}/rows.parquet").drop_duplicates().dropna()
        frame = frame.sort_values(["user_id", "timestamp"])
        frame.to_parquet(f"{setup.folder}/plain.parquet", index=False)
        return len(frame)

    return Measured(rate(take, setup.sizes.seconds))


def pack_ours(setup: Setup) -> Measured:
    """Rows of a Parquet file to packed histories."""
    file = f"{setup.folder}/rows.parquet"
    figures = rate(lambda: len(_packed(setup, file).histories.items), setup.sizes.seconds)
    return Measured(figures, _INTERACTION + 4)


def pack_reference(setup: Setup) -> Measured:
    """The plain route: one Python list of item indices a user."""

    def work() -> int:
        frame = pd.read_parquet(f"{setup.folder}/fewer.parquet")
        frame["item"] = pd.factorize(frame["item_id"])[0] + 1
        lists = frame.sort_values("timestamp", kind="stable").groupby("user_id")["item"].agg(list)
        return int(lists.map(len).sum())

    return Measured(rate(work, setup.sizes.seconds))


def commit_ours(setup: Setup) -> Measured:
    """Replace a run date of `recommendations` by a staged file, streamed, in one commit."""
    settings = Settings(lake=f"{setup.folder}/lake-commit")
    lake = Lake.from_settings(settings)
    lake.create(pa.int64(), pa.int64())

    def work() -> int:
        with open_duckdb(settings) as con:
            staged = con.sql(f"from read_parquet({literal(f'{setup.folder}/lists.parquet')})")
            rows = staged.to_arrow_reader(100_000).cast(_LISTS)
            lake.replace(columns.RECOMMENDATIONS, rows, where=f"run_date = '{_DAY}'")
        return setup.sizes.rows

    return Measured(rate(work, setup.sizes.seconds), 2 * _RECOMMENDATION)


def commit_reference(setup: Setup) -> Measured:
    """The plain route: the same staged file as one frame, written to another."""

    def work() -> int:
        frame = pd.read_parquet(f"{setup.folder}/lists.parquet")
        frame.to_parquet(f"{setup.folder}/plain.parquet", index=False)
        return len(frame)

    return Measured(rate(work, setup.sizes.seconds))


def _movielens(setup: Setup) -> str:
    ratings = movielens_100k(Path(setup.cache))
    file = f"{setup.folder}/movielens-100k.parquet"
    chosen = "select user_id, movie_id as item_id, rated_at as timestamp from ratings"
    with duckdb.connect(str(ratings), read_only=True) as con:
        con.execute(f"copy ({chosen}) to {literal(file)}")
    return file


def _packed(setup: Setup, file: str) -> Packed:
    with open_duckdb(Settings(lake=setup.folder)) as con:
        con.execute(
            f"create view interactions as select {', '.join(columns.REQUIRED)}, "
            "timestamp as ingested_at, file_row_number as source_row "
            f"from read_parquet({literal(file)}, file_row_number = true)"
        )
        return pack(con)


def _write_interactions(file: Path, rows: int) -> None:
    """Write clean interactions of rows / 20 users with 20,000 items, a few of them popular."""
    generator = np.random.default_rng(0)
    moment = generator.integers(1_700_000_000, 1_760_000_000, rows) * 1_000_000
    made = {
        columns.USER_ID: generator.integers(0, max(1, rows // 20), rows),
        columns.ITEM_ID: (20_000 * generator.random(rows) ** 3).astype(np.int64),
        columns.TIMESTAMP: pa.array(moment, pa.timestamp("us", tz="UTC")),
    }
    pq.write_table(pa.table(made), file)


def _write_lists(file: Path, rows: int) -> None:
    """Write rows of `recommendations`, 20 a user."""
    generator, row = np.random.default_rng(0), np.arange(rows)
    varying = {
        "user_id": row // 20,
        "rank": (row % 20 + 1).astype(np.int32),
        "item_id": generator.integers(0, 20_000, rows),
        "score": generator.random(rows, dtype=np.float32),
    }
    constant = {"run_date": pd.Timestamp(_DAY).date(), "run_id": "run", "reason": "model"}
    made = pa.table(
        [
            pa.array(varying[field.name])
            if field.name in varying
            else pa.repeat(pa.scalar(constant.get(field.name), field.type), rows)
            for field in _LISTS
        ],
        schema=_LISTS,
    )
    pq.write_table(made, file)
