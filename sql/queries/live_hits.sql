-- One row per run date and model, newest first: how many active users took one of their first ten
-- items within $days (an integer) days, beside popularity's lists, with 95 % intervals of the lead.
with figures as (
    select
        *,
        cast(substr(metric, 4) as integer) as k
    from live_metrics
    where slice = 'all' and starts_with(metric, 'hr@') and days = $days::integer
),

chosen as (
    select *
    from figures
    where k <= 10
    qualify k = max(k) over (partition by run_date)
)

select
    run_date,
    any_value(model_id) as model_id,
    any_value(k) as k,
    any_value(users) as users,
    any_value(result) filter (where lists = 'served') as hit_rate,
    any_value(result) filter (where lists = 'popularity') as popularity_hit_rate,
    any_value(result - 1.96 * deviation / sqrt(users)) filter (where lists = 'lead') as lead_low,
    any_value(result + 1.96 * deviation / sqrt(users)) filter (where lists = 'lead') as lead_high
from chosen
group by run_date
order by run_date desc
