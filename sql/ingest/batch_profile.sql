-- One row: what the contract looks at, over the whole batch, and a hash of what is new.
-- reads: accepted_rows, anonymous_rows, new_rejected_rows, rejected_rows, rows_in_lake, staged_rows
-- makes: rows (row_count, accepted, rejected, quarantined, duplicates, anonymous, span_days,
--     fingerprint)
with accepted as (
    select
        count(*) as accepted,
        min("timestamp") as oldest,
        max("timestamp") as newest,
        bit_xor(hash(user_id, item_id, "timestamp", event, "value")) as content,
        sum(hash(user_id, item_id, "timestamp", event, "value")) as total
    from accepted_rows
),

new_rejected as (
    select
        count(*) as quarantined,
        bit_xor(hash(row, reasons)) as content
    from new_rejected_rows
)

select
    (select count(*) from staged_rows) as row_count,
    accepted.accepted,
    (select count(*) from rejected_rows) as rejected,
    new_rejected.quarantined,
    (select count(*) from rows_in_lake) as duplicates,
    (select count(*) from anonymous_rows) as anonymous,
    coalesce(epoch(accepted.newest) - epoch(accepted.oldest), 0) / 86400 as span_days,
    concat_ws(
        '-', accepted.accepted, accepted.content, accepted.total, new_rejected.content
    ) as fingerprint
from accepted, new_rejected
