-- One row per item of `catalogue` (those that somebody interacted with) that may be recommended:
-- `items` does not rule it out.
-- reads: catalogue, items
-- makes: rows (item)
select item
from catalogue
anti join (select item_id from items where not eligible) as ineligible using (item_id)
