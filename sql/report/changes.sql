-- One row: how the lists of $run_date differ from those of the night before.
-- reads: editions, recommendations, $run_date
-- makes: rows (before, users, new_users, gone_users, same_users, entries, kept_entries)
with night_before as (
    select max(run_date) as run_date
    from editions
    where status = 'current' and run_date < $run_date::date
),

tonight as (
    select
        user_id,
        item_id
    from recommendations
    where run_date = $run_date::date
),

before as (
    select
        user_id,
        item_id
    from recommendations
    where run_date = (select run_date from night_before)
),

users as (
    select
        coalesce(tonight.user_id, before.user_id) as user_id,
        count(tonight.item_id) as now,
        count(before.item_id) as earlier,
        count(*) filter (
            where tonight.item_id is not null and before.item_id is not null
        ) as kept
    from tonight
    full join before
        on tonight.user_id = before.user_id and tonight.item_id = before.item_id
    group by all
)

select
    (select run_date from night_before) as before,
    count(*) filter (where now > 0) as users,
    count(*) filter (where earlier = 0) as new_users,
    count(*) filter (where now = 0) as gone_users,
    count(*) filter (where now > 0 and kept = now and kept = earlier) as same_users,
    coalesce(sum(now) filter (where earlier > 0), 0)::bigint as entries,
    coalesce(sum(kept), 0)::bigint as kept_entries
from users
