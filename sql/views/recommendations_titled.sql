-- One row per user and rank of the newest run_date, with the item's title and category.
create view recommendations_titled as
select
    lists.*,
    items.title,
    items.category
from latest_recommendations as lists
left join items using (item_id);
