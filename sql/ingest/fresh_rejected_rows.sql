-- One row per rejected row that does not stand in quarantine already with the same reasons.
-- Table: before (row, reasons), what this source has in quarantine.
create or replace temp table fresh as
select rejected.*
from rejected
anti join before using (row, reasons)
