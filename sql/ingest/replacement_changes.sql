-- One row: whether the rows that replace others differ from them, accepted or rejected.
-- reads: accepted_rows, new_rejected_rows, quarantine, replaced_rows, $batches
-- makes: rows (changes)
with before as (
    select
        user_id,
        item_id,
        "timestamp",
        event,
        "value"
    from replaced_rows
),

after as (
    select
        user_id,
        item_id,
        "timestamp",
        event,
        "value"
    from accepted_rows
),

rejected_before as (
    select
        row,
        reasons
    from quarantine
    where list_contains($batches::varchar[], batch_id)
),

rejected_after as (
    select
        row,
        reasons
    from new_rejected_rows
)

select
    (select count(*) from before) <> (select count(*) from after)
    or exists (select * from before except all select * from after)
    or (select count(*) from rejected_before) <> (select count(*) from rejected_after)
    or exists (select * from rejected_before except all select * from rejected_after)
    as changes
