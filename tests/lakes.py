"""Lakes whose rows are known, written without going through ingest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys import columns
from recsys.registry.models import ModelRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recsys.lake.tables import Lake
    from recsys.registry.models import Status

START = datetime(2026, 1, 1, tzinfo=UTC)


def id_type(example: object) -> pa.DataType:
    return pa.string() if isinstance(example, str) else pa.int64()


def fill(
    lake: Lake, histories: dict[Any, Sequence[Any]], *, batch_id: str = "batch", day: int = 0
) -> None:
    """Append each user's items in order, a minute apart, as one accepted batch."""
    pairs = [(user, item, at) for user, items in histories.items() for at, item in enumerate(items)]
    lake.create(id_type(pairs[0][0]), id_type(pairs[0][1]))
    ingested = START + timedelta(days=day)
    write(
        lake,
        columns.INTERACTIONS,
        [
            {
                "user_id": user,
                "item_id": item,
                "timestamp": ingested + timedelta(minutes=at),
                "source_row": row,
                "batch_id": batch_id,
                "ingested_at": ingested,
            }
            for row, (user, item, at) in enumerate(pairs)
        ],
    )


def write(lake: Lake, table: str, rows: list[dict[str, Any]]) -> None:
    lake.append(table, pa.Table.from_pylist(rows, schema=lake.schema(table)))


def model_row(model_id: str, status: Status = "champion", **changes: Any) -> ModelRow:
    """The row of a model that nobody trained."""
    row = ModelRow(
        model_id=model_id,
        status=status,
        why="a test",
        preset="best",
        seed=0,
        interactions_version=1,
        users=1,
        items=1,
        interactions=1,
        validation_ndcg_10=0.0,
        test_ndcg_10=0.0,
        test_hr_10=0.0,
        popularity_validation_ndcg_10=0.0,
        popularity_test_ndcg_10=0.0,
        popularity_test_hr_10=0.0,
        metrics="{}",
        baselines="{}",
        config="{}",
        code_version="test",
        seconds=0.0,
        trained_at=START,
    )
    return replace(row, **changes)


def edition(run_date: date, number: int = 1, **changes: Any) -> dict[str, Any]:
    """A row of `editions`."""
    row = {"run_date": run_date, "edition": number, "status": "current", "run_id": "run"}
    return {**row, **changes}


def lists(run_date: date, made: dict[Any, Sequence[Any]], **same: Any) -> list[dict[str, Any]]:
    """Rows of `recommendations`: each user's items in rank order."""
    return [
        {
            "run_date": run_date,
            "run_id": "run",
            "user_id": user,
            "rank": rank,
            "item_id": item,
            "score": 1.0 / rank,
            "reason": "model",
            "model_id": "m",
            "interactions_version": 1,
            "generated_at": START,
            "edition": 1,
            **same,
        }
        for user, items in made.items()
        for rank, item in enumerate(items, start=1)
    ]
