-- One row: the type of both ids, integers only where every id is one. Blanks do not count: they are
-- made of characters that do not make an id.
-- reads: recsys_source_rows, $blanks
-- makes: rows (user_id, item_id)
select
    if(
        coalesce(
            bool_and(user_is_integer) filter (where trim(user_id, $blanks) <> ''), false
        ),
        'BIGINT',
        'VARCHAR'
    ) as user_id,
    if(
        coalesce(
            bool_and(item_is_integer) filter (where trim(item_id, $blanks) <> ''), false
        ),
        'BIGINT',
        'VARCHAR'
    ) as item_id
from recsys_source_rows
where fault is null
