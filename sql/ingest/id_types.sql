-- One row: the type of both ids, integers only where every id there is one. Blanks do not count.
-- Parameter: blanks, the characters that do not make an id.
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
from recsys_pulled
where fault is null
