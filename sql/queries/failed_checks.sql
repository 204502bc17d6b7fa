-- One row per check that failed or did not run, newest first.
select
    checked_at,
    subject,
    suite,
    rule,
    status,
    observed,
    threshold
from quality_results
where status <> 'passed'
order by checked_at desc, subject, rule
