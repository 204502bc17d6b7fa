"""The data dictionary: every table of the lake with its columns."""

from __future__ import annotations

import json

import pyarrow as pa

from recsys import columns

TIMESTAMP = pa.timestamp("us", tz="UTC")


def schemas(user_id: pa.DataType, item_id: pa.DataType) -> dict[str, pa.Schema]:
    """Return the schema of every table for these id types (int64 or string)."""

    def table(required: dict[str, pa.DataType], **optional: pa.DataType) -> pa.Schema:
        fields = [pa.field(name, kind, nullable=False) for name, kind in required.items()]
        return pa.schema([*fields, *(pa.field(name, kind) for name, kind in optional.items())])

    text, count, real = pa.string(), pa.int64(), pa.float64()
    a_file = pa.struct([("key", text), ("etag", text), ("size", count)])
    return {
        columns.INTERACTIONS: table(
            {"user_id": user_id, "item_id": item_id, "timestamp": TIMESTAMP},
            event=text,
            value=real,
            source_row=count,
            batch_id=text,
            ingested_at=TIMESTAMP,
        ),
        columns.QUARANTINE: table(
            {"batch_id": text, "source": text},
            object=text,
            source_row=count,
            row=text,
            reasons=pa.list_(text),
            quarantined_at=TIMESTAMP,
        ),
        columns.BATCHES: table(
            {"batch_id": text, "source": text, "status": text},
            objects=pa.list_(a_file),
            rows_in=count,
            accepted=count,
            quarantined=count,
            duplicates=count,
            interactions_version=count,
            started=TIMESTAMP,
            finished=TIMESTAMP,
        ),
        columns.ITEMS: table(
            {"item_id": item_id}, title=text, category=text, eligible=pa.bool_(), extra=text
        ),
        columns.RECOMMENDATIONS: table(
            {"run_date": pa.date32(), "run_id": text, "user_id": user_id, "rank": pa.int32()},
            item_id=item_id,
            score=pa.float32(),
            reason=text,
            model_id=text,
            interactions_version=count,
            generated_at=TIMESTAMP,
        ),
        columns.MODELS: table(
            {"model_id": text, "status": text},
            why=text,
            preset=text,
            seed=count,
            interactions_version=count,
            users=count,
            items=count,
            interactions=count,
            validation_ndcg_10=real,
            test_ndcg_10=real,
            test_hr_10=real,
            popularity_validation_ndcg_10=real,
            popularity_test_ndcg_10=real,
            popularity_test_hr_10=real,
            metrics=text,
            baselines=text,
            config=text,
            code_version=text,
            seconds=real,
            trained_at=TIMESTAMP,
        ),
        columns.RUNS: table(
            {"run_id": text, "flow": text, "status": text},
            started=TIMESTAMP,
            finished=TIMESTAMP,
            seconds=real,
            parameters=text,
            outcome=text,
            error=text,
            code_version=text,
        ),
        columns.QUALITY_RESULTS: table(
            {"subject": text, "suite": text, "rule": text, "status": text},
            column=text,
            observed=text,
            threshold=text,
            detail=text,
            checked_at=TIMESTAMP,
        ),
    }


def as_json(value: object) -> str:
    """Return the JSON text that tables hold for nested values, keys in order."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
