-- One row: how often $item_id was taken, on each of the 30 days up to the last time, and by whom the
-- last $count times.
-- reads: interactions, $count, $item_id
-- makes: rows (interactions, users, first_at, last_at, days, newest)
with own as materialized (
    select
        user_id,
        timestamp,
        event
    from interactions
    where item_id = $item_id
),

figures as (
    select
        count(*) as interactions,
        count(distinct user_id) as users,
        min(timestamp) as first_at,
        max(timestamp) as last_at
    from own
),

newest as (
    select *
    from own
    order by timestamp desc, user_id
    limit $count::bigint
),

days as (
    select unnest(range(30)) as age
),

counts as (
    select
        datediff('day', own.timestamp, figures.last_at) as age,
        count(*) as interactions
    from own
    cross join figures
    where own.timestamp > figures.last_at - interval 31 days
    group by 1
)

select
    interactions,
    users,
    first_at,
    last_at,
    (
        select list(coalesce(counts.interactions, 0) order by days.age desc)
        from days
        left join counts on days.age = counts.age
    ) as days,
    (
        select
            list(
                {'user_id': user_id, 'timestamp': timestamp, 'event': event}
                order by timestamp desc, user_id
            )
        from newest
    ) as newest
from figures
