-- One row per user, cached or new, in order; the first `cached_interactions` are those of the cache.
-- reads: cached_users, fresh_users, late_users
-- makes: rows (user_id, interactions, cached_interactions, newest, is_cached, place)
select
    user_id,
    coalesce(cached_users.interactions, 0) + coalesce(fresh_users.interactions, 0) as interactions,
    if(late_users.user_id is null, coalesce(cached_users.interactions, 0), 0) as cached_interactions,
    greatest(cached_users.newest, fresh_users.newest) as newest,
    cached_users.user_id is not null as is_cached,
    cast(row_number() over (order by user_id) as integer) as place
from cached_users
full join fresh_users using (user_id)
left join late_users using (user_id)
order by user_id
