-- One row per day of the 30 days before $until on which a batch was decided, oldest first.
-- reads: batches, $until
-- makes: rows (day, rows_in, accepted, quarantined, duplicates, refused)
select
    finished::date as day,
    sum(rows_in)::bigint as rows_in,
    sum(accepted)::bigint as accepted,
    sum(quarantined)::bigint as quarantined,
    sum(duplicates)::bigint as duplicates,
    count(*) filter (where status = 'refused') as refused
from batches
where finished > $until::timestamptz - interval 30 days and finished <= $until::timestamptz
group by day
order by day
