-- One row per row of the source, in source order, typed as the lake needs it. timestamp_text and
-- value_text are what the source has, where typing may lose it.
-- reads: recsys_source_rows, as_item, as_timestamp, as_user, timestamp_text, value_text
-- makes: table memory.main.staged_rows (user_id, item_id, timestamp, event, value, timestamp_text,
--     value_text, source_row, fault, raw_row)
create or replace table memory.main.staged_rows as
select
    as_user(user_id) as user_id,
    as_item(item_id) as item_id,
    as_timestamp("timestamp") as "timestamp",
    cast(event as varchar) as event,
    try_cast("value" as double) as "value",
    timestamp_text("timestamp") as timestamp_text,
    value_text("value") as value_text,
    source_row,
    fault,
    raw_row
from recsys_source_rows
