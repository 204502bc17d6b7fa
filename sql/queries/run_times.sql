-- One row per flow: how many runs completed in the last $days (an integer) days, how many did not,
-- and the seconds that they took.
select
    flow,
    count(*) filter (where status = 'completed') as completed,
    count(*) filter (where status not in ('completed', 'running')) as others,
    median(seconds) as median_seconds,
    max(seconds) as longest_seconds
from runs
where started >= now() - to_days($days::integer)
group by flow
order by flow
