-- One row per item: the $count that are in most lists of $run_date.
-- reads: items, recommendations, $count, $run_date
-- makes: rows (item_id, title, category, image, lists)
with shown as (
    select
        item_id,
        count(*) as lists
    from recommendations
    where run_date = $run_date::date
    group by item_id
    order by lists desc, item_id
    limit $count::bigint
)

select
    shown.item_id,
    items.title,
    items.category,
    items.extra ->> '$.image' as image,
    shown.lists
from shown
left join items on shown.item_id = items.item_id
order by shown.lists desc, shown.item_id
