-- One row per run_date, user with a list and item that this user took within its time: where the
-- item stood in the list, and among the night's popular items.
-- reads: first_interactions
-- makes: table judged_items (run_date, user_id, item_id, taken_at, user_kind, model_id, item_kind,
--     rank, reason, place)
create or replace temp table judged_items as
select
    null::date as run_date,
    user_id,
    item_id,
    first_at as taken_at,
    null::varchar as user_kind,
    null::varchar as model_id,
    null::varchar as item_kind,
    null::integer as rank,
    null::varchar as reason,
    null::integer as place
from first_interactions
limit 0
