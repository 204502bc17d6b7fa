-- One row per accepted row, as `interactions` holds it, in source order.
-- reads: accepted_rows, $batch_id, $now
-- makes: rows (*, batch_id, ingested_at)
select
    *,
    $batch_id::varchar as batch_id,
    $now::timestamptz as ingested_at
from accepted_rows
