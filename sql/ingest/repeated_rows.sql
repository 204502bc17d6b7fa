-- One row per staged row that repeats an earlier one's user, item and moment: its number (seq).
-- Rows that are faulty or held already do not count. Table: suspects.
create or replace temp table repeated as
with suspected as materialized (
    select
        staged.rowid as seq,
        staged.user_id,
        staged.item_id,
        staged."timestamp"
    from staged
    semi join suspects on hash(staged.user_id, staged.item_id, staged."timestamp") = fingerprint
),

rivals as (
    select *
    from suspected
    anti join faulty using (seq)
    anti join held using (seq)
)

select seq
from rivals
qualify row_number() over (partition by user_id, item_id, "timestamp" order by seq) > 1
