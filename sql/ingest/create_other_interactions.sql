-- One row per interaction that no batch of $batches brought: what stays when they are replaced.
-- reads: all_interactions, $batches
-- makes: table interactions (user_id, item_id, timestamp, event)
create or replace temp table interactions as
select
    user_id,
    item_id,
    "timestamp",
    event
from all_interactions
where not list_contains($batches::varchar[], batch_id)
