-- One row per user and rank of edition $edition of $run_date, as sinks get it.
-- reads: recommendations, $edition, $run_date
-- makes: rows (user_id, rank, item_id, score, confidence, reason, model_id, edition)
select
    user_id,
    rank,
    item_id,
    score,
    confidence,
    reason,
    model_id,
    coalesce(edition, 1) as edition
from recommendations
where run_date = $run_date and coalesce(edition, 1) = $edition
