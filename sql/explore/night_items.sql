-- One row per item whose number of lists differs most between $before and $after; at most $count.
-- reads: items, recommendations, $after, $before, $count
-- makes: rows (item_id, title, category, image, was, is_now)
with counted as (
    select
        item_id,
        count(*) filter (where run_date = $before::date) as was,
        count(*) filter (where run_date = $after::date) as is_now
    from recommendations
    where run_date in ($before::date, $after::date)
    group by item_id
    having was <> is_now
    order by abs(was - is_now) desc, item_id
    limit $count::bigint
)

select
    counted.item_id,
    items.title,
    items.category,
    items.extra ->> '$.image' as image,
    counted.was,
    counted.is_now
from counted
left join items on counted.item_id = items.item_id
order by abs(counted.was - counted.is_now) desc, counted.item_id
