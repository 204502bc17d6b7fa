-- One row per staged row that is an interaction of the lake already: its number (seq). Two events of
-- one user, item and timestamp are two interactions, but for $ignore_event; a row without an event is
-- the same as any. Interactions are cut to the staged span, so that only files of that time are read.
-- reads: interactions, staged_rows, $ignore_event, $newest, $oldest
-- makes: table rows_in_lake (seq)
create or replace temp table rows_in_lake as
select staged_rows.rowid as seq
from staged_rows
semi join (
    select
        user_id,
        item_id,
        "timestamp",
        event
    from interactions
    where "timestamp" between $oldest and $newest
) as before
    on
        staged_rows.user_id = before.user_id
        and staged_rows.item_id = before.item_id
        and staged_rows."timestamp" = before."timestamp"
        and (
            $ignore_event
            or staged_rows.event is null
            or before.event is null
            or staged_rows.event = before.event
        )
