-- One row per newly rejected row, as `quarantine` holds it.
select
    $batch_id::varchar as batch_id,
    $source::varchar as source,
    object,
    source_row,
    row,
    reasons,
    $now::timestamptz as quarantined_at
from fresh
order by seq
