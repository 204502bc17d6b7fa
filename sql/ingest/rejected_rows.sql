-- One row per rejected row: where it stood, the row as JSON under the source's names, all reasons.
-- A row that the lake holds already is not rejected, whatever the rules say today.
-- Macro: row_as_json.
create or replace temp table rejected as
with reasons as (
    select
        seq,
        reasons
    from faulty
    anti join held using (seq)

    union all

    select
        seq,
        ['duplicate in batch'] as reasons
    from repeated
)

select
    reasons.seq,
    objects.object,
    coalesce(staged.source_row, staged.rowid - objects.first_row + 1) as source_row,
    coalesce(
        staged.given,
        row_as_json(
            staged.user_id,
            staged.item_id,
            coalesce(
                to_json(staged.given_timestamp), to_json(cast(staged."timestamp" as varchar))
            ),
            staged.event,
            coalesce(to_json(staged.given_value), to_json(staged."value"))
        )
    ) as row,
    reasons.reasons
from reasons
inner join staged on reasons.seq = staged.rowid
asof inner join objects on staged.rowid >= objects.first_row
