-- One row per accepted row, up to about $most of them: which ones depends on $seed alone.
-- reads: accepted_rows, $accepted, $most, $seed
-- makes: rows (user_id, item_id, timestamp)
with share as (
    select $most / greatest($accepted, 1) as kept
)

select
    user_id,
    item_id,
    "timestamp"
from accepted_rows, share
where kept >= 1 or hash(source_row, $seed) < kept * 18446744073709551615::double
limit $most
