-- One row per night of the 30 days up to $run_date whose lists were judged by their first day, oldest
-- first: the share of active users who took one of the first k items, at most 10, of the served lists
-- and of popularity's.
-- reads: live_metrics, $run_date
-- makes: rows (run_date, k, users, served, popularity)
with rates as (
    select
        *,
        try_cast(regexp_extract(metric, '^hr@(\d+)$', 1) as integer) as k
    from live_metrics
    where
        run_date between $run_date::date - 29 and $run_date::date
        and days = 1
        and slice = 'all'
),

shown as (
    select *
    from rates
    where k <= 10
    qualify k = max(k) over (partition by run_date)
)

select
    run_date,
    k,
    any_value(users) as users,
    max(result) filter (where lists = 'served') as served,
    max(result) filter (where lists = 'popularity') as popularity
from shown
group by run_date, k
having served is not null
order by run_date
