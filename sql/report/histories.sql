-- One row per interaction: the newest 10 of each of $users before the lists of $run_date were made.
-- reads: editions, interactions, items, $run_date, $users
-- makes: rows (user_id, timestamp, item_id, title, category, event, image, price, interactions)
select
    interactions.user_id,
    interactions.timestamp,
    interactions.item_id,
    items.title,
    items.category,
    interactions.event,
    items.extra ->> '$.image' as image,
    items.extra ->> '$.price' as price,
    count(*) over (partition by interactions.user_id) as interactions
from interactions
left join items on interactions.item_id = items.item_id
where
    interactions.user_id in (select unnest($users))
    and interactions.timestamp < (
        select coalesce(max(data_until), $run_date::date + 1)
        from editions
        where run_date = $run_date::date and status = 'current'
    )
qualify
    row_number() over (
        partition by interactions.user_id
        order by interactions.timestamp desc, interactions.source_row desc
    ) <= 10
order by interactions.user_id, interactions.timestamp desc, interactions.source_row desc
