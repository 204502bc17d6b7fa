-- One row per batch whose rows change: how many of them are deleted.
-- reads: changed_rows, deleted_rows
-- makes: rows (batch_id, deleted)
with changes as (
    select
        batch_id,
        0 as deleted
    from changed_rows

    union all

    select
        batch_id,
        1 as deleted
    from deleted_rows
)

select
    batch_id,
    sum(deleted)::bigint as deleted
from changes
group by batch_id
order by batch_id
