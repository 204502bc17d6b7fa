-- One row per item that may be listed, most shown first on $run_date: in how many lists it is, and
-- how often users interacted with it.
-- reads: editions, interactions, items, recommendations, $run_date
-- makes: rows (item_id, lists, interactions)
with shown as (
    select
        item_id,
        count(*) as lists
    from recommendations
    where run_date = $run_date::date
    group by item_id
),

used as (
    select
        item_id,
        count(*) as interactions
    from interactions
    where
        timestamp < (
            select coalesce(max(data_until), $run_date::date + 1)
            from editions
            where run_date = $run_date::date and status = 'current'
        )
    group by item_id
)

select
    used.item_id,
    coalesce(shown.lists, 0) as lists,
    used.interactions
from used
left join shown on used.item_id = shown.item_id
where
    shown.lists > 0
    or not exists (select 1 from items)
    or used.item_id in (select item_id from items where eligible)
order by lists desc, used.interactions desc, used.item_id
