-- One row per measure: rows of the newest time, and how many of them are of a kind to be few.
-- reads: batches, interactions, $reference_until, $since, $until
-- makes: rows (measure, rows, part)
with first_users as (
    select
        user_id,
        min(timestamp) as first_at,
        count(*) filter (where timestamp >= $since) as rows
    from interactions
    where timestamp < $until
    group by user_id
),

first_items as (
    select
        item_id,
        min(timestamp) as first_at,
        count(*) filter (where timestamp >= $since) as rows
    from interactions
    where timestamp < $until
    group by item_id
)

select
    'unknown users' as measure,
    coalesce(sum(rows), 0) as rows,
    coalesce(sum(rows) filter (where first_at >= $reference_until), 0) as part
from first_users

union all

select
    'unknown items',
    coalesce(sum(rows), 0),
    coalesce(sum(rows) filter (where first_at >= $reference_until), 0)
from first_items

union all

select
    'quarantined rows',
    coalesce(sum(rows_in), 0),
    coalesce(sum(quarantined), 0)
from batches
where status = 'accepted' and finished >= $since and finished < $until
