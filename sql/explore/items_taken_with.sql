-- One row per item that goes most with $item_id among the $takers users who took it last: the most
-- by the cosine of how many of them took it, and how often it was taken in all.
-- reads: interactions, items, $count, $item_id, $takers
-- makes: rows (item_id, title, category, image, users, takers, interactions)
with takers as materialized (
    select user_id
    from interactions
    where item_id = $item_id
    group by user_id
    order by max(timestamp) desc, user_id
    limit $takers::bigint
),

together as materialized (
    select
        item_id,
        count(distinct user_id) as users
    from interactions
    semi join takers using (user_id)
    where item_id <> $item_id
    group by item_id
    order by users desc, item_id
    limit 500
),

counted as (
    select
        item_id,
        count(*) as interactions
    from interactions
    semi join together using (item_id)
    group by item_id
)

select
    together.item_id,
    items.title,
    items.category,
    items.extra ->> '$.image' as image,
    together.users,
    (select count(*) from takers) as takers,
    counted.interactions
from together
inner join counted on together.item_id = counted.item_id
left join items on together.item_id = items.item_id
order by together.users / sqrt(counted.interactions) desc, together.item_id
limit $count::bigint
