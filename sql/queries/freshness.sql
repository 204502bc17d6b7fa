-- One row per run date: median days since the first interaction with its listed items.
with first_seen as (
    select
        item_id,
        min(timestamp) as first_at
    from interactions
    group by item_id
)

select
    run_date,
    median(run_date - cast(first_at as date)) as median_item_age_days
from recommendations
inner join first_seen using (item_id)
group by run_date
order by run_date desc
