-- One row per item of `catalogue` (those that somebody interacted with): whether it may be
-- recommended, or what speaks against it. While `items` is empty, nothing does.
-- reads: catalogue, items
-- makes: rows (item, verdict)
select
    catalogue.item,
    case
        when not exists (select 1 from items) then 'eligible'
        when items.item_id is null then 'not in items'
        when items.eligible then 'eligible'
        else 'not eligible'
    end as verdict
from catalogue
left join items using (item_id)
