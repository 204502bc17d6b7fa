-- One row per interaction of the batches of $batches as it stands after the changes, under its own
-- batch and time of ingestion, and one per accepted row.
-- reads: accepted_rows, changed_rows, deleted_rows, interactions, $batch_id, $batches, $now
-- makes: rows (*)
select
    before.* replace (
        if(changed_rows.batch_id is null, before.event, changed_rows.event) as event,
        if(changed_rows.batch_id is null, before."value", changed_rows."value") as "value"
    )
from interactions as before
left join changed_rows using (user_id, item_id, "timestamp", batch_id)
anti join deleted_rows using (user_id, item_id, "timestamp", batch_id)
where list_contains($batches::varchar[], before.batch_id)

union all by name

select
    *,
    $batch_id::varchar as batch_id,
    $now::timestamptz as ingested_at
from accepted_rows
order by ingested_at, batch_id, source_row
