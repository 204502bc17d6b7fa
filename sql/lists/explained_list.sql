-- One row per rank of the list that $user_id got on $run_date, as edition $edition.
-- reads: recommendations, $edition, $run_date, $user_id
-- makes: rows (user_id, rank, item_id, score, reason, model_id)
select
    user_id,
    rank,
    item_id,
    score,
    reason,
    model_id
from recommendations
where user_id = $user_id and run_date = $run_date and coalesce(edition, 1) = $edition
order by rank
