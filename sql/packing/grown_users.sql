-- One row per user, held or new, in order; `kept` of the interactions are taken as they are held.
-- Tables: held_users, fresh_users, late_users.
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
