-- One row per item that somebody interacted with and that is in no list that stands, most had
-- first.
select
    interactions.item_id,
    any_value(items.title) as title,
    count(*) as interactions
from interactions
left join items using (item_id)
anti join recommendations using (item_id)
group by interactions.item_id
order by interactions desc, interactions.item_id
