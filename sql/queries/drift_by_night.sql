-- One row per run date and measure, newest first: how far the newest data are from what was learnt.
select
    run_date,
    measure,
    kind,
    result,
    warn_at,
    retrain_at,
    verdict
from drift
order by run_date desc, result desc nulls last, measure
