-- One row per interaction: the newest $count with $item_id.
-- reads: interactions, $count, $item_id
-- makes: rows (user_id, timestamp, event, value)
select
    user_id,
    timestamp,
    event,
    value
from interactions
where item_id = $item_id
order by timestamp desc, user_id
limit $count::bigint
