-- One row per night of the 30 days up to $run_date that has a night before it: the share of the
-- entries that were in the user's list of that night before. Of one user in $one_in, by a hash.
-- reads: editions, recommendations, $one_in, $run_date
-- makes: rows (run_date, kept)
with nights as (
    select
        run_date,
        lag(run_date) over (order by run_date) as before
    from editions
    where status = 'current' and run_date between $run_date::date - 30 and $run_date::date
),

entries as materialized (
    select
        run_date,
        user_id,
        item_id
    from recommendations
    where
        run_date between $run_date::date - 30 and $run_date::date
        and hash(user_id) % $one_in::ubigint = 0
),

served as (
    select distinct
        run_date,
        user_id
    from entries
)

select
    entries.run_date,
    count(earlier.item_id) / count(*) as kept
from entries
inner join nights using (run_date)
semi join served
    on nights.before = served.run_date and entries.user_id = served.user_id
left join entries as earlier
    on nights.before = earlier.run_date
    and entries.user_id = earlier.user_id
    and entries.item_id = earlier.item_id
group by entries.run_date
order by entries.run_date
