-- One row: how many `interactions` there are, and how many of them are with no item of `known_items`.
-- reads: interactions, known_items
-- makes: rows (interactions, unknown)
select
    coalesce(sum(rows), 0)::bigint as interactions,
    coalesce(sum(rows) filter (where known_items.item_id is null), 0)::bigint as unknown
from (select item_id, count(*) as rows from interactions group by item_id) as counted
left join known_items using (item_id)
