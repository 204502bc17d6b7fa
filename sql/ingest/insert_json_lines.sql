-- One row per line that is not blank, of the files from $first on and before $end; what is not an
-- object carries a fault. Each other parameter is the JSON pointer of a column.
-- reads: lines, integer_of_text, $end, $event, $first, $item_id, $timestamp, $user_id, $value
-- makes: rows of recsys_source_rows
insert into recsys_source_rows
with objects as (
    select
        file,
        "number",
        coalesce(
            fault,
            if(json_valid(line), null, 'line is not JSON'),
            if(json_type(line) = 'OBJECT', null, 'line is not a JSON object')
        ) as broken,
        if(broken is null, line, to_json(line)) as raw_row,
        if(broken is null, line, null) as object
    from lines
    where file >= $first and file < $end and trim(line, ' ' || chr(9) || chr(13)) <> ''
),

fields as (
    select
        *,
        json_type(object, $user_id) as user_kind,
        json_type(object, $item_id) as item_kind,
        coalesce(
            user_kind in ('UBIGINT', 'BIGINT', 'DOUBLE')
            and integer_of_text(json_extract_string(object, $user_id)) is not null,
            false
        ) as user_is_integer,
        coalesce(
            item_kind in ('UBIGINT', 'BIGINT', 'DOUBLE')
            and integer_of_text(json_extract_string(object, $item_id)) is not null,
            false
        ) as item_is_integer
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
        if(
            user_kind in ('OBJECT', 'ARRAY', 'BOOLEAN')
            or (user_kind = 'DOUBLE' and not user_is_integer),
            'user_id is not an id', null
        ),
        if(
            item_kind in ('OBJECT', 'ARRAY', 'BOOLEAN')
            or (item_kind = 'DOUBLE' and not item_is_integer),
            'item_id is not an id', null
        ),
        if(json_type(object, $event) in ('OBJECT', 'ARRAY'), 'event is not text', null)
    ) as fault,
    raw_row,
    user_is_integer,
    item_is_integer
from fields
order by file, "number"
