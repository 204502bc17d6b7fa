-- One row per staged row that is taken: as `interactions` will hold it, in source order.
create or replace temp view accepted as
select
    user_id,
    item_id,
    "timestamp",
    event,
    "value",
    staged.rowid + 1 as source_row
from staged
anti join (
    select seq from held

    union all

    select seq from rejected
) as left_out on staged.rowid = left_out.seq
