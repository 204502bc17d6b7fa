-- One row per day, newest first: users, interactions, and users who were not seen before that day.
with first_days as (
    select
        user_id,
        min(cast(timestamp as date)) as first_day
    from interactions
    group by user_id
)

select
    cast(timestamp as date) as day,
    count(distinct user_id) as users,
    count(*) as interactions,
    count(distinct user_id) filter (where first_day = cast(timestamp as date)) as new_users
from interactions
inner join first_days using (user_id)
group by day
order by day desc
