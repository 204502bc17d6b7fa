-- One row per interaction in scope whose event or value is another one at the source now: with what
-- it is to become. The last row of a repeated interaction counts, and no faulty row does. Where the
-- lake has several events of one moment, from a time of another rule, they stay.
-- reads: faulty_rows, rows_in_scope, staged_rows
-- makes: table changed_rows (user_id, item_id, timestamp, event, value, batch_id)
create or replace temp table changed_rows as
with sound_rows as (
    select
        staged_rows.rowid as seq,
        user_id,
        item_id,
        "timestamp",
        event,
        "value"
    from staged_rows
    anti join faulty_rows on staged_rows.rowid = faulty_rows.seq
),

different as (
    select
        sound_rows.*,
        rows_in_scope.batch_id
    from sound_rows
    inner join rows_in_scope using (user_id, item_id, "timestamp")
    where
        rows_in_scope.of_moment = 1
        and (
            sound_rows.event is distinct from rows_in_scope.event
            or sound_rows."value" is distinct from rows_in_scope."value"
        )
)

select
    different.user_id,
    different.item_id,
    different."timestamp",
    different.event,
    different."value",
    different.batch_id
from different
anti join sound_rows as later
    on
        different.user_id = later.user_id
        and different.item_id = later.item_id
        and different."timestamp" = later."timestamp"
        and different.seq < later.seq
