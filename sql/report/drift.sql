-- One row per measure of the newest night up to $run_date that measured drift, the worst first.
-- reads: drift, $run_date
-- makes: rows (run_date, measure, kind, result, warn_at, retrain_at, verdict, rows, reference_rows,
--     trend)
with month_before as (
    select *
    from drift
    where run_date between $run_date::date - 29 and $run_date::date
)

select
    run_date,
    measure,
    kind,
    result,
    warn_at,
    retrain_at,
    verdict,
    rows,
    reference_rows,
    (
        select list(month_before.result order by month_before.run_date)
        from month_before
        where month_before.measure = newest.measure
    ) as trend
from month_before as newest
where run_date = (select max(run_date) from month_before)
order by list_position(['retrain', 'warn', 'steady', 'unknown'], verdict), measure
