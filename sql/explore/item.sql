-- One row, or none: what the item source says of $item_id.
-- reads: items, $item_id
-- makes: rows (item_id, title, category, eligible, image, extra)
select
    item_id,
    title,
    category,
    eligible,
    extra ->> '$.image' as image,
    extra
from items
where item_id = $item_id
