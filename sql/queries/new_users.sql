-- One row per user of the newest run date who had no list before, and how the user was served.
with newest as (
    select max(run_date) as run_date
    from recommendations
)

select
    user_id,
    any_value(reason order by rank) as first_reason,
    count(*) as items
from recommendations
where
    run_date = (select run_date from newest)
    and user_id not in (
        select user_id
        from recommendations
        where run_date < (select run_date from newest)
    )
group by user_id
order by user_id
