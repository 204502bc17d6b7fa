-- One row per record of the CSV or JSON Lines files, everything still text as it was given.
create or replace temp table recsys_pulled (
    user_id varchar,
    item_id varchar,
    "timestamp" varchar,
    event varchar,
    "value" varchar,
    source_row bigint,
    fault varchar,
    given varchar,
    user_is_integer boolean,
    item_is_integer boolean
)
