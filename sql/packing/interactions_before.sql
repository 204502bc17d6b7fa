-- One row per user of `interactions`, in order: how many interactions are before the timestamp that
-- has the share $validated of all before it, and before that of $tested.
-- reads: interactions, $tested, $validated
-- makes: rows (before_validation, before_test)
with split as (
    select
        quantile_disc("timestamp", $validated) as validation,
        quantile_disc("timestamp", $tested) as test
    from interactions
)

select
    count(*) filter (where "timestamp" < validation) as before_validation,
    count(*) filter (where "timestamp" < test) as before_test
from interactions, split
group by user_id
order by user_id
