-- One row per staged row, the first five: as `interactions` would hold it, and what is wrong.
-- reads: rejected_rows, staged_rows
-- makes: rows (user_id, item_id, timestamp, event, value, wrong)
select
    staged_rows.user_id,
    staged_rows.item_id,
    staged_rows."timestamp",
    staged_rows.event,
    staged_rows."value",
    array_to_string(rejected_rows.reasons, ', ') as wrong
from staged_rows
left join rejected_rows on staged_rows.rowid = rejected_rows.seq
order by staged_rows.rowid
limit 5
