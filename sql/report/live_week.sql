-- One row per slice and value: the lists of the 7 newest scored nights up to $run_date, each against
-- the day that it was for; means over users, and the standard error of the lead.
-- reads: live_metrics, $run_date
-- makes: rows (slice, value, nights, users, served, popularity, lead, lead_error)
with week as (
    select *
    from live_metrics
    where
        days = 1
        and metric in ('hr@10', 'hr')
        and run_date <= $run_date::date
    qualify dense_rank() over (order by run_date desc) <= 7
)

select
    slice,
    value,
    count(distinct run_date) as nights,
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
order by slice = 'all' desc, slice, try_cast(value as integer), value
