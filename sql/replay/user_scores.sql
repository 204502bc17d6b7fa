-- One row per user with a list of $run_date who took something new: how the first $cutoff items did,
-- and those that popularity would have listed.
-- reads: judged_items, popular_ranks, $cutoff, $ideal, $model_id, $run_date
-- makes: rows (run_date, model_id, user_id, hr, ndcg, popular_hr, popular_ndcg)
with gains as (
    select
        judged_items.user_id,
        least(count(*), $cutoff) as taken,
        coalesce(
            sum(1 / log2(judged_items.rank + 1)) filter (where judged_items.rank <= $cutoff), 0
        ) as gain,
        coalesce(
            sum(1 / log2(popular_ranks.rank + 1)) filter (where popular_ranks.rank <= $cutoff), 0
        ) as popular_gain
    from judged_items
    left join popular_ranks using (user_id, item_id)
    where judged_items.run_date = $run_date
    group by judged_items.user_id
)

select
    $run_date::date as run_date,
    $model_id::varchar as model_id,
    user_id,
    if(gain > 0, 1.0, 0.0)::double as hr,
    gain / $ideal[taken] as ndcg,
    if(popular_gain > 0, 1.0, 0.0)::double as popular_hr,
    popular_gain / $ideal[taken] as popular_ndcg
from gains
