-- One row per night of the 30 days up to $run_date whose lists were scored by the day after, oldest
-- first: the share of active users who took a listed item, served and by popularity's lists.
-- reads: live_metrics, $run_date
-- makes: rows (run_date, users, served, popularity)
select
    run_date,
    any_value(users) as users,
    max(result) filter (where lists = 'served') as served,
    max(result) filter (where lists = 'popularity') as popularity
from live_metrics
where
    run_date between $run_date::date - 29 and $run_date::date
    and days = 1
    and slice = 'all'
    and metric = 'hr@10'
group by run_date
having served is not null
order by run_date
