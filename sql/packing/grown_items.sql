-- One row per item, cached or new; cached ones keep their code, new ones follow. `place` is the
-- position in order of item_id.
-- reads: fresh_items, held_items
-- makes: rows (item_id, interactions, code, place)
select
    item_id,
    coalesce(held_items.interactions, 0) + coalesce(fresh_items.interactions, 0) as interactions,
    cast(row_number() over (order by held_items.code, item_id) as integer) as code,
    cast(row_number() over (order by item_id) as integer) as place
from held_items
full join fresh_items using (item_id)
