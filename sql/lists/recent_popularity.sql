-- One row per item with a target: its targets, each half as much as one $half_life seconds later.
-- reads: interactions, roles_of, $half_life
-- makes: rows (item_id, weight)
with targets as (
    select
        item_id,
        epoch("timestamp") as happened
    from interactions
    where (roles_of(event, value, "timestamp") & 1) <> 0
),

newest as (
    select max(happened) as happened
    from targets
)

select
    targets.item_id,
    sum(pow(2, (targets.happened - newest.happened) / $half_life)) as weight
from targets
cross join newest
group by targets.item_id
