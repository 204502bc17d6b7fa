-- One row per category, the most used first, at most 12: its share of what the listed users did and
-- its share of their lists on $run_date.
-- reads: editions, interactions, items, recommendations, $run_date
-- makes: rows (category, used, listed)
with lists as (
    select
        user_id,
        item_id
    from recommendations
    where run_date = $run_date::date
),

uses as (
    select
        items.category,
        count(*) as n
    from interactions
    semi join lists using (user_id)
    inner join items on interactions.item_id = items.item_id
    where
        items.category is not null
        and interactions.timestamp < (
            select coalesce(max(data_until), $run_date::date + 1)
            from editions
            where run_date = $run_date::date and status = 'current'
        )
    group by items.category
),

listings as (
    select
        items.category,
        count(*) as n
    from lists
    inner join items using (item_id)
    where items.category is not null
    group by items.category
)

select
    coalesce(uses.category, listings.category) as category,
    coalesce(uses.n, 0) / (select sum(n) from uses) as used,
    coalesce(listings.n, 0) / (select sum(n) from listings) as listed
from uses
full join listings on uses.category = listings.category
order by used desc nulls last, category
limit 12
