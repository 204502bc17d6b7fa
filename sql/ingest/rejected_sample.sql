-- One row per example in a refusal's report: five rejected rows, of as many kinds as there are.
-- reads: rejected_rows
-- makes: rows (object, source_row, reasons, row)
select
    object,
    source_row,
    array_to_string(reasons, ', ') as reasons,
    row
from rejected_rows
order by row_number() over (partition by reasons order by seq), seq
limit 5
