-- One row per newly rejected row, as `quarantine` holds it.
-- reads: new_rejected_rows, $batch_id, $now, $source
-- makes: rows (batch_id, source, object, source_row, row, reasons, quarantined_at)
select
    $batch_id::varchar as batch_id,
    $source::varchar as source,
    object,
    source_row,
    row,
    reasons,
    $now::timestamptz as quarantined_at
from new_rejected_rows
order by seq
