-- One row per item, cached or new; cached ones keep their code, new ones follow. `place` is the
-- position in order of item_id.
-- reads: cached_items, fresh_items
-- makes: rows (item_id, interactions, code, place)
select
    item_id,
    coalesce(cached_items.interactions, 0) + coalesce(fresh_items.interactions, 0) as interactions,
    cast(row_number() over (order by cached_items.code, item_id) as integer) as code,
    cast(row_number() over (order by item_id) as integer) as place
from cached_items
full join fresh_items using (item_id)
