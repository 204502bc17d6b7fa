-- One row per rejected row: where it was, the row as JSON under the source's names, all reasons.
-- A row that is already in the lake is not rejected, whatever the rules say today; nor is one that
-- another row of the batch is, word for word.
-- reads: faulty_rows, objects, repeated_rows, rows_in_lake, staged_rows, row_as_json
-- makes: table rejected_rows (seq, object, source_row, row, reasons)
create or replace temp table rejected_rows as
with reasons as (
    select
        seq,
        reasons
    from faulty_rows
    anti join rows_in_lake using (seq)

    union all

    select
        seq,
        ['duplicate in batch'] as reasons
    from repeated_rows
    where not is_exact
)

select
    reasons.seq,
    objects.object,
    coalesce(staged_rows.source_row, staged_rows.rowid - objects.first_row + 1) as source_row,
    coalesce(
        staged_rows.raw_row,
        row_as_json(
            staged_rows.user_id,
            staged_rows.item_id,
            coalesce(
                to_json(staged_rows.timestamp_text),
                to_json(cast(staged_rows."timestamp" as varchar))
            ),
            staged_rows.event,
            coalesce(to_json(staged_rows.value_text), to_json(staged_rows."value"))
        )
    ) as row,
    reasons.reasons
from reasons
inner join staged_rows on reasons.seq = staged_rows.rowid
asof inner join objects on staged_rows.rowid >= objects.first_row
