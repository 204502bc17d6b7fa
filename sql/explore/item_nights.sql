-- One row per night of $nights, newest first: in how many lists $item_id is, and where.
-- reads: editions, recommendations, $item_id, $nights
-- makes: rows (run_date, lists, users, best, place)
with listed as (
    select
        run_date,
        count(*) as lists,
        min(rank) as best,
        avg(rank) as place
    from recommendations
    where item_id = $item_id and run_date in (select unnest($nights::date[]))
    group by run_date
)

select
    editions.run_date,
    coalesce(listed.lists, 0) as lists,
    editions.users,
    listed.best,
    listed.place
from editions
left join listed on editions.run_date = listed.run_date
where editions.status = 'current' and editions.run_date in (select unnest($nights::date[]))
order by editions.run_date desc
