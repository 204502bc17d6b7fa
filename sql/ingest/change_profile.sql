-- One row: how many rows change, of how many in scope, and a hash of the changes.
-- reads: changed_rows, deleted_rows, rows_in_scope
-- makes: rows (replaced, deleted, in_scope, fingerprint)
with changed as (
    select
        count(*) as replaced,
        sum(hash(user_id, item_id, "timestamp", event, "value")) as content
    from changed_rows
),

deleted as (
    select
        count(*) as deleted,
        sum(hash(user_id, item_id, "timestamp")) as content
    from deleted_rows
)

select
    changed.replaced,
    deleted.deleted,
    (select count(*) from rows_in_scope) as in_scope,
    concat_ws('-', changed.content, deleted.content) as fingerprint
from changed, deleted
