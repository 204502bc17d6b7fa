-- One row per item of `catalogue` that may be recommended: somebody interacted with it,
-- and `items` does not rule it out.
select catalogue.item
from catalogue
semi join interactions using (item_id)
anti join (select item_id from items where not eligible) as withheld using (item_id)
