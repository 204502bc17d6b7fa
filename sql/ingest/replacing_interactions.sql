-- One row per accepted row, as `interactions` holds it, in source order; one that stood before
-- keeps its time of ingestion.
-- reads: accepted_rows, replaced_rows, $batch_id, $now
-- makes: rows (*, batch_id, ingested_at)
with before as (
    select
        user_id,
        item_id,
        "timestamp",
        min(ingested_at) as first_ingested_at
    from replaced_rows
    group by user_id, item_id, "timestamp"
)

select
    accepted_rows.*,
    $batch_id::varchar as batch_id,
    coalesce(before.first_ingested_at, $now::timestamptz) as ingested_at
from accepted_rows
left join before using (user_id, item_id, "timestamp")
order by accepted_rows.source_row
