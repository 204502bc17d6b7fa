-- One row per item whose id begins with $text, or whose title has it, in any case: ids first, then
-- titles that begin with it; at most $count.
-- reads: interactions, items, $count, $text
-- makes: rows (item_id, title, category, image)
with known as (
    select
        item_id,
        title,
        category,
        extra ->> '$.image' as image
    from items

    union all

    select
        item_id,
        null,
        null,
        null
    from (select distinct item_id from interactions) as taken
    anti join items using (item_id)
)

select
    item_id,
    title,
    category,
    image
from known
where starts_with(lower(item_id::varchar), lower($text)) or contains(lower(title), lower($text))
order by
    not starts_with(lower(item_id::varchar), lower($text)),
    not starts_with(lower(title), lower($text)),
    length(coalesce(title, item_id::varchar)),
    item_id
limit $count::bigint
