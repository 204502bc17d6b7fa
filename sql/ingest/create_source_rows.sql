-- One row per record of the CSV or JSON Lines files, everything still text, as the source has it.
-- reads: nothing
-- makes: table recsys_source_rows (user_id, item_id, timestamp, event, value, source_row, fault,
--     raw_row, user_is_integer, item_is_integer)
create or replace temp table recsys_source_rows (
    user_id varchar,
    item_id varchar,
    "timestamp" varchar,
    event varchar,
    "value" varchar,
    source_row bigint,
    fault varchar,
    raw_row varchar,
    user_is_integer boolean,
    item_is_integer boolean
)
