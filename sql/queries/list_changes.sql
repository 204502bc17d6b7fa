-- One row per user of the two newest run dates: whether the user is new, gone, changed or the same,
-- and how many items stayed, were added and were removed.
with served as (
    select run_date
    from editions
    where status = 'current'
),

dates as (
    select
        max(run_date) as today,
        max(run_date) filter (where run_date < (select max(run_date) from served)) as yesterday
    from served
),

today as (
    select user_id, item_id
    from recommendations
    where run_date = (select today from dates)
),

yesterday as (
    select user_id, item_id
    from recommendations
    where run_date = (select yesterday from dates)
)

select
    coalesce(today.user_id, yesterday.user_id) as user_id,
    case
        when count(yesterday.user_id) = 0 then 'new'
        when count(today.user_id) = 0 then 'gone'
        when count(today.user_id) = count(*) and count(yesterday.user_id) = count(*) then 'same'
        else 'changed'
    end as change,
    count(*) filter (where today.item_id is not null and yesterday.item_id is not null) as stayed,
    count(*) filter (where yesterday.item_id is null) as added,
    count(*) filter (where today.item_id is null) as removed
from today
full join yesterday
    on today.user_id = yesterday.user_id and today.item_id = yesterday.item_id
group by 1
order by added desc, user_id
