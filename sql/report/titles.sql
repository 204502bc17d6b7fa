-- One row per item of $items that the item source has.
-- reads: items, $items
-- makes: rows (item_id, title, category, image, price)
select
    item_id,
    title,
    category,
    extra ->> '$.image' as image,
    extra ->> '$.price' as price
from items
where item_id in (select unnest($items))
