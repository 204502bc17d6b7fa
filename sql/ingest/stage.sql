-- One row per row pulled from the source, in source order, typed as the lake wants it.
-- View or table: recsys_pulled. Macros, by the source's types: as_user, as_item, as_moment,
-- kept_timestamp and kept_value (what the source gave, where typing may lose it).
create or replace table memory.main.staged as
select
    as_user(user_id) as user_id,
    as_item(item_id) as item_id,
    as_moment("timestamp") as "timestamp",
    cast(event as varchar) as event,
    try_cast("value" as double) as "value",
    kept_timestamp("timestamp") as given_timestamp,
    kept_value("value") as given_value,
    source_row,
    fault,
    given
from recsys_pulled
