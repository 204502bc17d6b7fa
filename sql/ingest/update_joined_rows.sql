-- Rows of a file that was joined from several are numbered as in the one that each came from; the
-- last row of one may have a fault.
-- reads: joined_rows, recsys_source_rows, $first
-- makes: changes in recsys_source_rows
update recsys_source_rows
set
    source_row = (
        select own_row
        from joined_rows
        where joined_row = source_row
    ),
    fault = coalesce(fault, (
        select own_fault
        from joined_rows
        where joined_row = source_row
    ))
where rowid >= $first
