-- One row per interaction in scope that the source no longer holds. A faulty row still holds it.
-- reads: rows_in_scope, staged_rows, $is_deleting
-- makes: table deleted_rows (user_id, item_id, timestamp, batch_id)
create or replace temp table deleted_rows as
select
    user_id,
    item_id,
    "timestamp",
    batch_id
from rows_in_scope
anti join staged_rows using (user_id, item_id, "timestamp")
where $is_deleting
