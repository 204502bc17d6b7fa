-- One row per staged row whose user, item and timestamp are already in the lake: its number (seq).
-- Interactions are cut to the staged span, so that only files of that time are read.
-- reads: interactions, staged_rows, $newest, $oldest
-- makes: table rows_in_lake (seq)
create or replace temp table rows_in_lake as
select staged_rows.rowid as seq
from staged_rows
semi join (
    select
        user_id,
        item_id,
        "timestamp"
    from interactions
    where "timestamp" between $oldest and $newest
) as before using (user_id, item_id, "timestamp")
