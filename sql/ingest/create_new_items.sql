-- One row per item whose id is of the lake's type, as `items` holds it, by item_id.
-- reads: catalogue, as_item, is_lost_item
-- makes: table new_items (item_id, title, category, eligible, extra)
create or replace temp table new_items as
select
    as_item(item_id) as item_id,
    cast(title as varchar) as title,
    cast(category as varchar) as category,
    cast(eligible as boolean) as eligible,
    extra
from catalogue
where not coalesce(is_lost_item(item_id), false)
order by item_id
