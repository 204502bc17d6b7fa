-- One row per user: the $count whose list of $run_date has $item_id in the highest place.
-- reads: recommendations, $count, $item_id, $run_date
-- makes: rows (user_id, rank, reason, confidence)
select
    user_id,
    rank,
    reason,
    confidence
from recommendations
where run_date = $run_date::date and item_id = $item_id
order by rank, confidence desc nulls last, user_id
limit $count::bigint
