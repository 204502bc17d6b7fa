-- One row per user whose items are most like those of $user_id, by the cosine of both sets of items;
-- of the 500 users who share most of the newest $items items.
-- reads: interactions, $count, $items, $user_id
-- makes: rows (user_id, shared, items, own, likeness)
with own as materialized (
    select item_id
    from interactions
    where user_id = $user_id
    group by item_id
    order by max(timestamp) desc, item_id
    limit $items::bigint
),

sharing as materialized (
    select
        user_id,
        count(distinct item_id) as shared
    from interactions
    semi join own using (item_id)
    where user_id <> $user_id
    group by user_id
    order by shared desc, user_id
    limit 500
),

sizes as (
    select
        user_id,
        count(distinct item_id) as items
    from interactions
    semi join sharing using (user_id)
    group by user_id
)

select
    sharing.user_id,
    sharing.shared,
    sizes.items,
    (select count(*) from own) as own,
    sharing.shared / sqrt(sizes.items * (select count(*) from own)) as likeness
from sharing
inner join sizes on sharing.user_id = sizes.user_id
order by likeness desc, sharing.user_id
limit $count::bigint
