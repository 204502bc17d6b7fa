-- One row per rule that was checked for the lists of $run_date, for `interactions`, or for the newest
-- batch of a source; what did not pass comes first.
-- reads: latest_batches, quality_results, $run_date
-- makes: rows (suite, rule, status, observed, threshold, checked_at)
select
    suite,
    rule,
    status,
    observed,
    threshold,
    checked_at
from quality_results
where
    subject = 'recommendations ' || $run_date
    or subject = 'interactions'
    or subject in (select unnest([batch_id, source]) from latest_batches)
order by status = 'passed', suite, rule
