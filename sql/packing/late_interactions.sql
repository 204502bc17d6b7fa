-- One row per interaction to place: those of `fresh`, and of late users all that they ever had.
-- reads: fresh, late_users, whole
-- makes: rows (user_id, item_id, timestamp, ingested_at, source_row)
select
    user_id,
    item_id,
    "timestamp",
    ingested_at,
    source_row
from fresh
anti join late_users using (user_id)
union all
select
    user_id,
    item_id,
    "timestamp",
    ingested_at,
    source_row
from whole
semi join late_users using (user_id)
