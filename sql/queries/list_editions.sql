-- One row per run date and edition, newest first: how many users it serves, and what became of it.
select
    run_date,
    edition,
    status,
    users,
    without_list,
    rows,
    model_id,
    data_until,
    as_of,
    why,
    who,
    published_at
from editions
order by run_date desc, edition desc
