-- One row per staged row that repeats another one's user, item and timestamp: its number (seq). The
-- first row stands, or with $keep_last the last one.
-- Rows without a user, faulty rows and rows that are already in the lake do not count.
-- reads: anonymous_rows, faulty_rows, repeated_hashes, rows_in_lake, staged_rows, $keep_last
-- makes: table repeated_rows (seq)
create or replace temp table repeated_rows as
with suspected as materialized (
    select
        staged_rows.rowid as seq,
        staged_rows.user_id,
        staged_rows.item_id,
        staged_rows."timestamp"
    from staged_rows
    semi join repeated_hashes
        on hash(staged_rows.user_id, staged_rows.item_id, staged_rows."timestamp") = "hash"
),

rivals as (
    select *
    from suspected
    anti join anonymous_rows using (seq)
    anti join faulty_rows using (seq)
    anti join rows_in_lake using (seq)
)

select seq
from rivals
qualify row_number() over (partition by user_id, item_id, "timestamp" order by if($keep_last, -seq, seq)) > 1
