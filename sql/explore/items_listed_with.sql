-- One row per item that is in most lists of $run_date that hold $item_id.
-- reads: items, recommendations, $count, $item_id, $run_date
-- makes: rows (item_id, title, category, image, lists, holders)
with holders as materialized (
    select user_id
    from recommendations
    where run_date = $run_date::date and item_id = $item_id
),

together as (
    select
        item_id,
        count(*) as lists
    from recommendations
    semi join holders using (user_id)
    where run_date = $run_date::date and item_id <> $item_id
    group by item_id
    order by lists desc, item_id
    limit $count::bigint
)

select
    together.item_id,
    items.title,
    items.category,
    items.extra ->> '$.image' as image,
    together.lists,
    (select count(*) from holders) as holders
from together
left join items on together.item_id = items.item_id
order by together.lists desc, together.item_id
