-- One row per interaction: the last $count (an integer) interactions of the user $user_id (an id),
-- newest first.
select
    interactions.timestamp,
    interactions.item_id,
    items.title
from interactions
left join items using (item_id)
where interactions.user_id = $user_id
order by interactions.timestamp desc, interactions.ingested_at desc, interactions.source_row desc
limit $count::bigint
