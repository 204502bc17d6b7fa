-- One row per item of `interactions`, most interacted with first; ties by item_id.
select
    item_id,
    count(*) as interactions
from interactions
group by item_id
order by interactions desc, item_id
