-- One row per interaction that a batch of $batches brought, all of which are to be replaced.
-- reads: all_interactions, $batches
-- makes: table replaced_rows (user_id, item_id, timestamp, event, value, ingested_at)
create or replace temp table replaced_rows as
select
    user_id,
    item_id,
    "timestamp",
    event,
    "value",
    ingested_at
from all_interactions
where list_contains($batches::varchar[], batch_id)
