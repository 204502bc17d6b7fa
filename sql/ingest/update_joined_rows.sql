-- Rows of a file that was joined from several are numbered as in the one that each came from.
-- reads: recsys_source_rows, joined_files, $first
-- makes: changes in recsys_source_rows
update recsys_source_rows
set source_row = numbered.source_row
from (
    select
        joined.place,
        joined.source_row - joined_files.rows_before as source_row
    from (
        select
            rowid as place,
            source_row,
            source_row - 2 as rows_before
        from recsys_source_rows
        where rowid >= $first
    ) as joined
    asof inner join joined_files on joined.rows_before >= joined_files.rows_before
) as numbered
where recsys_source_rows.rowid = numbered.place
