-- One row per user, cached or new, in order; the first `kept` interactions are those of the cache.
-- reads: fresh_users, held_users, late_users
-- makes: rows (user_id, interactions, kept, newest, is_held, place)
select
    user_id,
    coalesce(held_users.interactions, 0) + coalesce(fresh_users.interactions, 0) as interactions,
    if(late_users.user_id is null, coalesce(held_users.interactions, 0), 0) as kept,
    greatest(held_users.newest, fresh_users.newest) as newest,
    held_users.user_id is not null as is_held,
    cast(row_number() over (order by user_id) as integer) as place
from held_users
full join fresh_users using (user_id)
left join late_users using (user_id)
order by user_id
