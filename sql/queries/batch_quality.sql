-- One row per day and source, newest first: batches, rows that came, and how many were rejected.
select
    cast(finished as date) as day,
    source,
    count(*) as batches,
    sum(rows_in) as rows_in,
    sum(accepted) as accepted,
    sum(quarantined) as quarantined,
    sum(duplicates) as duplicates,
    sum(quarantined) / nullif(sum(rows_in), 0) as share_quarantined
from batches
group by day, source
order by day desc, source
