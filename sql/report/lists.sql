-- One row per rank up to 10 of each of $users on $run_date, with the item's title.
-- reads: items, recommendations, $run_date, $users
-- makes: rows (user_id, rank, item_id, title, category, image, reason, score,
--     confidence)
select
    lists.user_id,
    lists.rank,
    lists.item_id,
    items.title,
    items.category,
    items.extra ->> '$.image' as image,
    lists.reason,
    lists.score,
    lists.confidence
from recommendations as lists
left join items using (item_id)
where
    lists.run_date = $run_date::date
    and lists.rank <= 10
    and lists.user_id in (select unnest($users))
order by lists.user_id, lists.rank
