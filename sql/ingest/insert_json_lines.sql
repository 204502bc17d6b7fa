-- One row per line of a JSON Lines file that is not blank; what is not an object carries a fault.
-- Each parameter is the JSON pointer of a column.
-- reads: lines, $event, $item_id, $timestamp, $user_id, $value
-- makes: rows of recsys_source_rows
insert into recsys_source_rows
with objects as (
    select
        rowid + 1 as "number",
        coalesce(
            fault,
            if(json_valid(line), null, 'line is not JSON'),
            if(json_type(line) = 'OBJECT', null, 'line is not a JSON object')
        ) as broken,
        if(broken is null, line, to_json(line)) as raw_row,
        if(broken is null, line, null) as object
    from lines
    where trim(line, ' ' || chr(9) || chr(13)) <> ''
),

fields as (
    select
        *,
        json_type(object, $user_id) as user_kind,
        json_type(object, $item_id) as item_kind
    from objects
)

select
    json_extract_string(object, $user_id) as user_id,
    json_extract_string(object, $item_id) as item_id,
    json_extract_string(object, $timestamp) as "timestamp",
    json_extract_string(object, $event) as event,
    json_extract_string(object, $value) as "value",
    "number" as source_row,
    coalesce(
        broken,
        if(user_kind in ('OBJECT', 'ARRAY', 'BOOLEAN', 'DOUBLE'), 'user_id is not an id', null),
        if(item_kind in ('OBJECT', 'ARRAY', 'BOOLEAN', 'DOUBLE'), 'item_id is not an id', null)
    ) as fault,
    raw_row,
    user_kind in ('UBIGINT', 'BIGINT') and try_cast(user_id as bigint) is not null
        as user_is_integer,
    item_kind in ('UBIGINT', 'BIGINT') and try_cast(item_id as bigint) is not null
        as item_is_integer
from fields
order by "number"
