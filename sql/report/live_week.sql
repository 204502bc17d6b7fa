-- One row per slice and value: the lists of the 7 newest judged nights up to $run_date, each judged
-- by its first day and by its first k items, at most 10. Means over users, and the standard error of
-- the lead.
-- reads: live_metrics, $run_date
-- makes: rows (slice, value, nights, k, users, served, popularity, lead, lead_error)
with rates as (
    select
        *,
        try_cast(regexp_extract(metric, '^hr@(\d+)$', 1) as integer) as k
    from live_metrics
    where days = 1 and run_date <= $run_date::date
),

week as (
    select *
    from rates
    where k <= 10
    qualify
        dense_rank() over (order by run_date desc) <= 7
        and k = max(k) over (partition by run_date)
)

select
    slice,
    value,
    count(distinct run_date) as nights,
    max(k) as k,
    (sum(users) filter (where lists = 'served'))::bigint as users,
    sum(result * users) filter (where lists = 'served')
    / nullif(sum(users) filter (where lists = 'served'), 0) as served,
    sum(result * users) filter (where lists = 'popularity')
    / nullif(sum(users) filter (where lists = 'popularity'), 0) as popularity,
    sum(result * users) filter (where lists = 'lead')
    / nullif(sum(users) filter (where lists = 'lead'), 0) as lead,
    sqrt(sum(deviation * deviation * users) filter (where lists = 'lead'))
    / nullif(sum(users) filter (where lists = 'lead'), 0) as lead_error
from week
group by slice, value
having served is not null
order by if(slice = 'all', 0, 1), slice, value
