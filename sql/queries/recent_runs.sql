-- One row per flow run of the last 30 days, newest first.
select
    started,
    flow,
    status,
    seconds,
    outcome,
    error,
    run_id
from runs
where started >= now() - interval 30 days
order by started desc
