-- One row per run date, slice and value, newest first: hit rates on the first day of users and
-- items that the model knew or not, and of each reason.
select
    run_date,
    slice,
    value,
    metric,
    users,
    result as hit_rate
from live_metrics
where
    lists = 'served'
    and days = 1
    and slice in ('user', 'item', 'reason')
    and starts_with(metric, 'hr@')
order by run_date desc, slice, value, metric
