-- One row per rejected row that is not in quarantine yet with the same reasons.
-- reads: quarantined_rows, rejected_rows
-- makes: table new_rejected_rows (*)
create or replace temp table new_rejected_rows as
select rejected_rows.*
from rejected_rows
anti join quarantined_rows using (row, reasons)
