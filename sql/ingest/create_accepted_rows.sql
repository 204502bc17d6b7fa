-- One row per staged row to append: as `interactions` will hold it, in source order.
-- reads: anonymous_rows, rejected_rows, rows_in_lake, staged_rows
-- makes: view accepted_rows (user_id, item_id, timestamp, event, value, source_row)
create or replace temp view accepted_rows as
select
    user_id,
    item_id,
    "timestamp",
    event,
    "value",
    staged_rows.rowid + 1 as source_row
from staged_rows
anti join (
    select seq from rows_in_lake

    union all

    select seq from rejected_rows

    union all

    select seq from anonymous_rows
) as left_out on staged_rows.rowid = left_out.seq
