-- One row per item of `interactions`, in order of item_id; `place` is the position in that order.
-- reads: interactions
-- makes: rows (item_id, interactions, place)
select
    item_id,
    count(*) as interactions,
    cast(row_number() over (order by item_id) as integer) as place
from interactions
group by item_id
order by item_id
