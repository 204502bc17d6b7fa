-- One row per run that started before $until, the newest 12, newest first.
-- reads: runs, $until
-- makes: rows (started, flow, status, seconds, error)
select
    started,
    flow,
    status,
    seconds,
    error
from runs
where started <= $until::timestamptz
order by started desc
limit 12
