-- One row per run date: how unevenly its places are shared by the items that it shows (Gini index,
-- 0: evenly, near 1: one item has all).
with shown as (
    select
        run_date,
        item_id,
        count(*) as places
    from recommendations
    group by run_date, item_id
),

ranked as (
    select
        run_date,
        places,
        row_number() over (partition by run_date order by places, item_id) as number
    from shown
)

select
    run_date,
    count(*) as items,
    2 * sum(number * places) / (count(*) * sum(places)) - (count(*) + 1) / count(*) as gini
from ranked
group by run_date
order by run_date desc
