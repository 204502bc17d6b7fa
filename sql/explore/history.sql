-- One row per interaction of $user_id, newest first, $count of them after the first $skipped; with
-- how many there are, and the items taken from $since on.
-- reads: interactions, items, $count, $since, $skipped, $user_id
-- makes: rows (timestamp, item_id, title, category, image, event, value, interactions, first_at,
--     last_at, items_since)
with own as materialized (
    select
        timestamp,
        item_id,
        event,
        value,
        source_row
    from interactions
    where user_id = $user_id
),

newest as (
    select *
    from own
    order by timestamp desc, source_row desc
    limit $count::bigint
    offset $skipped::bigint
),

figures as (
    select
        count(*) as interactions,
        min(timestamp) as first_at,
        max(timestamp) as last_at,
        list(distinct item_id) filter (where timestamp >= $since::timestamptz) as items_since
    from own
)

select
    newest.timestamp,
    newest.item_id,
    items.title,
    items.category,
    items.extra ->> '$.image' as image,
    newest.event,
    newest.value,
    figures.interactions,
    figures.first_at,
    figures.last_at,
    coalesce(figures.items_since, []) as items_since
from newest
cross join figures
left join items on newest.item_id = items.item_id
order by newest.timestamp desc, newest.source_row desc
