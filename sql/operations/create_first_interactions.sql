-- One row per user and item of `recent_interactions`: when the user had the item first, and since
-- when that is known.
-- reads: interactions, recent_interactions, roles_of, $until
-- makes: table first_interactions (user_id, item_id, first_at, known_at)
create or replace temp table first_interactions as
select
    user_id,
    item_id,
    min(timestamp) as first_at,
    min(coalesce(ingested_at, '-infinity'::timestamptz)) as known_at
from interactions
semi join recent_interactions using (user_id, item_id)
where timestamp < $until and (roles_of(event, value, timestamp) & 4) > 0
group by user_id, item_id
