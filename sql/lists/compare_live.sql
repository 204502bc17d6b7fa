-- One row per metric: what users did on the first day of two days' lists, or of two models' lists on
-- all nights that they served.
-- reads: live_metrics, $day_a, $day_b, $model_a, $model_b
-- makes: rows (section, name, a, b, shared)
with sides as (
    select
        *,
        case
            when run_date = $day_a::date or model_id = $model_a then 'a'
            when run_date = $day_b::date or model_id = $model_b then 'b'
        end as side
    from live_metrics
    where days = 1 and slice = 'all' and lists in ('served', 'lead')
),

totals as (
    select
        side,
        lists,
        metric,
        sum(result * users) / sum(users) as result
    from sides
    where side is not null
    group by side, lists, metric
)

select
    'live' as section,
    metric || if(lists = 'lead', ', lead over popularity', '') as name,
    any_value(result) filter (where side = 'a') as a,
    any_value(result) filter (where side = 'b') as b,
    null::double as shared
from totals
group by lists, metric
order by lists desc, metric
