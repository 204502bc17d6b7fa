-- One row per run_date and edition of lists from before $before, as `list_days` holds it.
-- reads: recommendations, $before
-- makes: rows (run_date, edition, run_id, model_id, users, rows, model_rows, popular_rows, items,
--     generated_at)
select
    run_date,
    edition,
    any_value(run_id) as run_id,
    any_value(model_id) as model_id,
    count(distinct user_id) as users,
    count(*) as rows,
    count(*) filter (where starts_with(reason, 'model')) as model_rows,
    count(*) filter (where starts_with(reason, 'popular')) as popular_rows,
    count(distinct item_id) as items,
    max(generated_at) as generated_at
from recommendations
where run_date < $before::date
group by run_date, edition
order by run_date, edition
