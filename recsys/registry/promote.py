"""Who serves: the one place that makes a model the champion and retires the one before."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys import columns
from recsys.errors import LakeError
from recsys.registry.models import model_rows

if TYPE_CHECKING:
    from recsys.lake.tables import Lake
    from recsys.registry.models import ModelRow


def register_model(lake: Lake, row: ModelRow, judged_against: str | None = None) -> None:
    """Write a model's row; where it is the champion, retire the one before in the same commit.

    Args:
        lake: where to.
        row: the model.
        judged_against: the id of the champion that the gate compared it with; None where there
            was none.

    Raises:
        LakeError: `models` can't be read or written, or another run has made another model the
            champion meanwhile; then nothing has changed.
    """
    rows = [row]
    if row.status == "champion":
        lake.refresh()  # a training takes long, and on S3 nothing keeps other runs out
        champions = [
            before
            for before in model_rows(lake)
            if before.status == "champion" and before.model_id != row.model_id
        ]
        if champions and champions[0].model_id != judged_against:  # the newest comes first
            raise LakeError(
                f"model {row.model_id} was compared with {judged_against or 'no champion'}, but "
                f"another run has made {champions[0].model_id} the champion meanwhile; run "
                "`recsys train` again",
                transient=True,
            )
        rows += [
            replace(before, status="retired", why=f"{before.why}; retired by {row.model_id}")
            for before in champions
        ]
    records = [asdict(changed) for changed in rows]
    table = pa.Table.from_pylist(records, schema=lake.schema(columns.MODELS))
    lake.upsert(columns.MODELS, table, on="model_id")
