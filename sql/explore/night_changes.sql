-- One row: how the lists of $after differ from those of $before, and the $count users in both whose
-- lists differ most.
-- reads: recommendations, $after, $before, $count
-- makes: rows (users_before, users_after, new_users, gone_users, same_users, entries, kept_entries,
--     most)
with earlier as (
    select
        user_id,
        item_id
    from recommendations
    where run_date = $before::date
),

later as (
    select
        user_id,
        item_id
    from recommendations
    where run_date = $after::date
),

kept as (
    select
        user_id,
        count(*) as kept
    from later
    semi join earlier using (user_id, item_id)
    group by user_id
),

earlier_sizes as (
    select
        user_id,
        count(*) as size
    from earlier
    group by user_id
),

later_sizes as (
    select
        user_id,
        count(*) as size
    from later
    group by user_id
),

users as materialized (
    select
        coalesce(later_sizes.user_id, earlier_sizes.user_id) as user_id,
        earlier_sizes.size as was,
        later_sizes.size as is_now,
        coalesce(kept, 0) as kept
    from later_sizes
    full join earlier_sizes on later_sizes.user_id = earlier_sizes.user_id
    left join kept on later_sizes.user_id = kept.user_id
),

most as (
    select *
    from users
    where was is not null and is_now is not null and kept < greatest(was, is_now)
    order by kept / greatest(was, is_now), user_id
    limit $count::bigint
)

select
    count(was) as users_before,
    count(is_now) as users_after,
    count(*) filter (where was is null) as new_users,
    count(*) filter (where is_now is null) as gone_users,
    count(*) filter (where kept = was and kept = is_now) as same_users,
    coalesce(sum(is_now) filter (where was is not null), 0)::bigint as entries,
    coalesce(sum(kept), 0)::bigint as kept_entries,
    (
        select list({'user_id': user_id, 'kept': kept, 'size': is_now} order by kept, user_id)
        from most
    ) as most
from users
