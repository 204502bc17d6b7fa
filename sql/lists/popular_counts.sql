-- One row per item of $items: how often it was a target since $since; null: ever.
-- reads: interactions, roles_of, $items, $since
-- makes: rows (item_id, interactions)
select
    item_id,
    count(*) as interactions
from interactions
where
    item_id in (select unnest($items))
    and (roles_of(event, value, "timestamp") & 1) > 0
    and ($since::timestamptz is null or "timestamp" >= $since)
group by item_id
