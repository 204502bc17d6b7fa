"""Who serves: the one place that makes a model the champion and retires the one before."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys import columns
from recsys.registry.models import model_rows

if TYPE_CHECKING:
    from recsys.lake.tables import Lake
    from recsys.registry.models import ModelRow


def register_model(lake: Lake, row: ModelRow) -> None:
    """Write a model's row; where it is the champion, retire the one before in the same commit.

    Raises:
        LakeError: `models` can't be read or written; then nothing has changed.
    """
    rows = [row]
    if row.status == "champion":
        rows += [
            replace(before, status="retired", why=f"{before.why}; retired by {row.model_id}")
            for before in model_rows(lake)
            if before.status == "champion" and before.model_id != row.model_id
        ]
    records = [asdict(changed) for changed in rows]
    table = pa.Table.from_pylist(records, schema=lake.schema(columns.MODELS))
    lake.upsert(columns.MODELS, table, on="model_id")
