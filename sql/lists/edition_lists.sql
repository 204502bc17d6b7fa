-- One row per user and rank of edition $edition of $run_date.
-- reads: recommendations, $edition, $run_date
-- makes: rows (user_id, rank, item_id, reason)
select
    user_id,
    rank,
    item_id,
    reason
from recommendations
where run_date = $run_date and coalesce(edition, 1) = $edition
