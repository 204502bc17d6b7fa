-- One row per user of `interactions`, in order; `place` is the position in that order.
-- reads: interactions
-- makes: rows (user_id, interactions, newest, place)
select
    user_id,
    count(*) as interactions,
    max("timestamp") as newest,
    cast(row_number() over (order by user_id) as integer) as place
from interactions
group by user_id
order by user_id
