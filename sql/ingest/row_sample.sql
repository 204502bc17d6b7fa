-- One row per accepted row, up to about $most of them: which ones depends on $seed alone.
-- reads: accepted_rows, $accepted, $most, $seed
-- makes: rows (user_id, item_id, timestamp)
with shares as (
    select $most / greatest($accepted, 1) as sampled
)

select
    user_id,
    item_id,
    "timestamp"
from accepted_rows, shares
where sampled >= 1 or hash(source_row, $seed) < sampled * 18446744073709551615::double
limit $most
