-- The last row gets a fault: it has no line end, so that its file may be half-written.
-- reads: recsys_source_rows, $fault
-- makes: changes in recsys_source_rows
update recsys_source_rows
set fault = $fault
where fault is null and rowid = (select max(rowid) from recsys_source_rows)
