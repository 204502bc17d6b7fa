-- One row: what the contract looks at, over the whole batch, and a fingerprint of what is new.
with accepted_rows as (
    select
        count(*) as accepted,
        min("timestamp") as oldest,
        max("timestamp") as newest,
        bit_xor(hash(user_id, item_id, "timestamp", event, "value")) as content,
        sum(hash(user_id, item_id, "timestamp", event, "value")) as total
    from accepted
),

fresh_rows as (
    select
        count(*) as quarantined,
        bit_xor(hash(row, reasons)) as content
    from fresh
)

select
    (select count(*) from staged) as row_count,
    accepted_rows.accepted,
    (select count(*) from rejected) as rejected,
    fresh_rows.quarantined,
    (select count(*) from held) as duplicates,
    coalesce(epoch(accepted_rows.newest) - epoch(accepted_rows.oldest), 0) / 86400 as span_days,
    concat_ws(
        '-', accepted_rows.accepted, accepted_rows.content, accepted_rows.total, fresh_rows.content
    ) as fingerprint
from accepted_rows, fresh_rows
