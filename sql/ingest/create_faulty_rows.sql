-- One row per staged row that breaks a rule by itself: its number (seq) and every reason.
-- Only an id that begins with no visible ASCII is trimmed, which is slow.
-- reads: anonymous_rows, staged_rows, item_text, user_text, $blanks, $latest, $max_id_bytes
-- makes: table faulty_rows (seq, reasons)
create or replace temp table faulty_rows as
with faults as (
    select
        rowid as seq,
        fault is not null as unread,
        user_id is null as user_null,
        case
            when user_text(user_id) < '!' or user_text(user_id) > '~'
                then trim(user_text(user_id), $blanks) = ''
            else false
        end as user_empty,
        coalesce(strlen(user_text(user_id)) > $max_id_bytes, false) as user_long,
        item_id is null as item_null,
        case
            when item_text(item_id) < '!' or item_text(item_id) > '~'
                then trim(item_text(item_id), $blanks) = ''
            else false
        end as item_empty,
        coalesce(strlen(item_text(item_id)) > $max_id_bytes, false) as item_long,
        "timestamp" is null and timestamp_text is null as timestamp_null,
        "timestamp" is null and timestamp_text is not null as timestamp_unparsable,
        coalesce("timestamp" > $latest, false) as timestamp_future,
        "value" is null and value_text is not null as value_unparsable,
        fault
    from staged_rows
    anti join anonymous_rows on staged_rows.rowid = anonymous_rows.seq
)

select
    seq,
    if(
        unread,
        [fault],
        list_filter(
            [
                if(user_null, 'user_id is null', null),
                if(user_empty, 'user_id is empty', null),
                if(user_long, 'user_id is too long', null),
                if(item_null, 'item_id is null', null),
                if(item_empty, 'item_id is empty', null),
                if(item_long, 'item_id is too long', null),
                if(timestamp_null, 'timestamp is null', null),
                if(timestamp_unparsable, 'timestamp is unparsable', null),
                if(timestamp_future, 'timestamp is in the future', null),
                if(value_unparsable, 'value is unparsable', null)
            ],
            lambda reason: reason is not null
        )
    ) as reasons
from faults
where
    unread
    or user_null
    or user_empty
    or user_long
    or item_null
    or item_empty
    or item_long
    or timestamp_null
    or timestamp_unparsable
    or timestamp_future
    or value_unparsable
