-- One row per run date and effect of [rules]: what the rules did to the lists of that day.
select
    cast(right(subject, 10) as date) as run_date,
    rule as effect,
    cast(observed as bigint) as times
from quality_results
where suite = 'rules'
order by run_date desc, effect
