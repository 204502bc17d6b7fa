-- One row: how many items of the source have an id that is not of the lake's type, and an example.
-- reads: catalogue, is_lost_item
-- makes: rows (lost, items, example)
select
    count(*) filter (where is_lost_item(item_id)) as lost,
    count(*) as items,
    min(cast(item_id as varchar)) filter (where is_lost_item(item_id)) as example
from catalogue
