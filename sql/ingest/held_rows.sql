-- One row per staged row whose user, item and moment the lake holds already: its number (seq).
-- View: interactions, cut to the staged span so that only files of that time are read.
create or replace temp table held as
select staged.rowid as seq
from staged
semi join (
    select
        user_id,
        item_id,
        "timestamp"
    from interactions
    where "timestamp" between $oldest and $newest
) as before using (user_id, item_id, "timestamp")
