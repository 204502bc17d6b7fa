-- One row per accepted row, as `interactions` holds it, in source order.
select
    *,
    $batch_id::varchar as batch_id,
    $now::timestamptz as ingested_at
from accepted
