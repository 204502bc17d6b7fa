-- One row per night whose lists are served and still in the lake, newest first.
-- reads: editions, list_days
-- makes: rows (run_date, edition, model_id, users, popular_users, without_list, data_until,
--     published_at, why)
select
    run_date,
    edition,
    model_id,
    users,
    popular_users,
    without_list,
    data_until,
    published_at,
    why
from editions
anti join list_days using (run_date, edition)
where status = 'current'
order by run_date desc
