-- One row per rank: what the user $user_id is recommended today, with titles.
select
    rank,
    item_id,
    title,
    score,
    reason,
    confidence,
    run_date
from recommendations_titled
where user_id = $user_id
order by rank
